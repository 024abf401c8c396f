"""Talking to EC2: clients, tags that carry the idempotency key, and what an error says about the effect."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import boto3
from botocore import exceptions as boto
from botocore.config import Config

from compensate import Permanent, Unknown

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.literals import ResourceTypeType
    from mypy_boto3_ec2.type_defs import TagSpecificationTypeDef

KEY_TAG: Final = "compensate:key"
SAGA_TAG: Final = "compensate:saga"
LONGEST_TAG: Final = 256

Kind = Literal["vpc", "internet-gateway", "subnet", "security-group", "route-table"]
# How each kind is listed: the call, where the list stands in its answer, and the field with the id.
KINDS: Final[dict[Kind, tuple[str, str, str]]] = {
    "vpc": ("describe_vpcs", "Vpcs", "VpcId"),
    "internet-gateway": ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "subnet": ("describe_subnets", "Subnets", "SubnetId"),
    "security-group": ("describe_security_groups", "SecurityGroups", "GroupId"),
    "route-table": ("describe_route_tables", "RouteTables", "RouteTableId"),
}

# Refused, but may be accepted later: too many requests; or a part that is not yet visible everywhere, or not yet gone.
PASSING: Final = re.compile(r"RequestLimitExceeded|Throttl|DependencyViolation|\.NotFound$")


@dataclass(frozen=True)
class Site:
    """Where a network stands. Part of the saga's params, and so of its log.

    Were it given on the command line each time, a destroy in the wrong region or account would find nothing there,
    take everything for gone, and leave the network behind.
    """

    region: str
    account: str
    endpoint_url: str | None = None


class Aws:
    """The deps of the saga: one EC2 client for each site, shared by all threads.

    Args:
        pause: Seconds to wait after each effect (of an action or an undo) and before it is recorded. For watching a
            run, and for killing it at the worst moment.
        settle: Seconds for which an undo that does not know what was created goes on looking. EC2 lists a new
            resource a little late; a stand-in at an endpoint of its own does not.
    """

    def __init__(self, *, pause: float = 0.0, settle: float = 5.0) -> None:
        self.pause = pause
        self.settle = settle
        self._clients: dict[Site, EC2Client] = {}
        self._lock = threading.Lock()  # clients may be shared by threads, making them may not

    def ec2(self, site: Site) -> EC2Client:
        """The client for a site.

        Raises:
            Permanent: Today's credentials belong to another account.
        """
        with self._lock:
            if site not in self._clients:
                account = account_of(site.region, site.endpoint_url)
                if account != site.account:
                    raise Permanent(
                        f"the network is in account {site.account}, the credentials are for {account}: "
                        "set the right ones (AWS_PROFILE), then retry"
                    )
                self._clients[site] = _client("ec2", site.region, site.endpoint_url)
            return self._clients[site]

    def done(self, output: str) -> str:
        """Hand an action's output on, after the pause."""
        time.sleep(self.pause)
        return output

    def find(self, site: Site, kind: Kind, key: str) -> str | None:
        """The resource that an earlier attempt made under an idempotency key, or `None`."""
        return min(self._under(site, kind, key), default=None)

    def made(self, site: Site, kind: Kind, key: str, known: str | None) -> Iterator[str]:
        """Everything that was made under a key, for its undo; `known` is the action's output, if there is one.

        More than one thing only where EC2 listed the first too late for a second attempt to see it.
        """
        until = time.monotonic() + (0.0 if known or site.endpoint_url else self.settle)
        while not (found := self._under(site, kind, key)) and time.monotonic() < until:
            time.sleep(0.5)
        yield from sorted(found | {known} if known else found)
        time.sleep(self.pause)

    def _under(self, site: Site, kind: Kind, key: str) -> set[str]:
        found: list[Mapping[str, Any]] = []
        with calls():
            found = tagged(self.ec2(site), kind, KEY_TAG, key)
        return {str(resource[KINDS[kind][2]]) for resource in found}


def _client(service: Literal["ec2", "sts"], region: str, endpoint_url: str | None) -> Any:
    # One attempt: the saga retries, so that every attempt and its delay stand in the log, and so that no answer hides
    # that an earlier attempt may have taken effect. Short limits here instead of `timeout=` on the actions: nobody
    # can stop a thread, and a request that outlives its action could create something after the undo has looked.
    once = Config(
        retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20, max_pool_connections=32
    )
    session: Any = boto3.Session()  # its own: the default one may not be shared by threads
    return session.client(service, region_name=region, endpoint_url=endpoint_url, config=once)


def account_of(region: str, endpoint_url: str | None) -> str:
    """The account that today's credentials belong to."""
    identity: Mapping[str, Any] = {}
    with calls():
        identity = _client("sts", region, endpoint_url).get_caller_identity()
    return str(identity["Account"])


@contextmanager
def calls(*fine: str) -> Generator[None]:
    """Say of an error what it means for the effect; codes in `fine` mean that what was wanted is so already.

    Raises:
        Unknown: The request was sent and no clear answer came: it may have taken effect.
        Permanent: It was refused for a reason that stays.
        ClientError, ConnectionError, WaiterError: It took no effect and may be tried again.
    """
    try:
        yield
    except boto.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in fine:
            return
        if PASSING.search(code):
            raise
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            raise Unknown(str(error)) from error
        raise Permanent(str(error)) from error
    except boto.HTTPClientError as error:  # a reply that was cut off or did not come
        raise Unknown(str(error)) from error
    except (boto.ConnectionError, boto.WaiterError):  # nothing was sent; it was only looked for
        raise
    except boto.BotoCoreError as error:  # no credentials, no such region
        raise Permanent(str(error)) from error


def tags(kind: ResourceTypeType, key: str, name: str) -> Sequence[TagSpecificationTypeDef]:
    """Tags for a new resource. They are set by the creating call itself: there is no moment without them."""
    values = {"Name": name, KEY_TAG: _tag(key), SAGA_TAG: key.partition("/")[0]}
    return [{"ResourceType": kind, "Tags": [{"Key": tag, "Value": value} for tag, value in values.items()]}]


def tagged(ec2: EC2Client, kind: Kind, tag: str, value: str) -> list[Mapping[str, Any]]:
    """Every resource of a kind with that tag."""
    describe, where, _ = KINDS[kind]
    wanted = _tag(value)
    # EC2 reads * and ? in filters as wildcards, and moto [ and ] too. So these are asked for as "any character", and
    # what comes back is compared exactly: an undo must never delete its neighbour's resources.
    asked = [{"Name": f"tag:{tag}", "Values": [re.sub(r"[][*?\\]", "?", wanted)]}]
    answer = cast("list[Mapping[str, Any]]", getattr(ec2, describe)(Filters=asked)[where])
    return [resource for resource in answer if {"Key": tag, "Value": wanted} in resource.get("Tags", [])]


def _tag(value: str) -> str:
    return value if len(value) <= LONGEST_TAG else client_token(value)


def client_token(key: str) -> str:
    """The key as EC2 takes it where a call has a ClientToken: at most 64 ASCII characters."""
    return hashlib.sha256(key.encode()).hexdigest()
