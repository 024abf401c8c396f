"""The actions of the AWS example, one at a time, against a real moto server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from botocore import exceptions as boto

from compensate import Ctx, Permanent
from compensate.authoring.context import Reader
from examples.aws_infrastructure import saga as example
from examples.aws_infrastructure.aws import SAGA_TAG, Aws, Kind, Site, account_of, tagged
from examples.aws_infrastructure.moto_server import environment, moto_server

CIDR = "10.0.0.0/16"
PARTS: list[Kind] = ["internet-gateway", "subnet", "security-group", "route-table"]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch, moto_server() as url:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment().items():
            patch.setenv(name, value)
        yield Site("eu-west-1", account_of("eu-west-1", url), url)


@pytest.fixture
def aws() -> Aws:
    return Aws()


class Inputs(Reader):
    """Gives an action's inputs to its undo, as the runtime does from the log."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self._inputs = inputs

    def lookup(self, name: str, tp: Any) -> Any:
        raise AssertionError(name)

    def params(self, tp: Any) -> Any:
        raise AssertionError(tp)

    def inputs(self) -> Mapping[str, Any]:
        return self._inputs

    def expired(self) -> bool:
        return False

    def now(self) -> float:
        return 0.0


class Step:
    """One action of one saga, run by hand: its `do` and `undo` under the same node."""

    def __init__(self, aws: Aws, saga_id: str, action: Any, **inputs: Any) -> None:
        self.action, self.inputs = action, inputs
        self.do_ctx = Ctx(aws, saga_id, action.name, reader=Inputs(inputs))
        self.undo_ctx = Ctx(aws, saga_id, action.name, direction="undo", reader=Inputs(inputs))

    def do(self) -> str:
        return str(self.action.fn(self.do_ctx, **self.inputs))

    def undo(self, output: str | None) -> None:
        self.action.undo_fn(self.undo_ctx, output)


def vpc_step(aws: Aws, site: Site, saga_id: str) -> Step:
    return Step(aws, saga_id, example.create_vpc, site=site, name="test", cidr=CIDR)


def steps_of(aws: Aws, site: Site, saga_id: str) -> Iterator[tuple[Step, str]]:
    """Every action that has an undo, in an order that the graph allows; each is done when it is given out."""

    def done(action: Any, **inputs: Any) -> tuple[Step, str]:
        step = Step(aws, saga_id, action, site=site, **inputs)
        return step, step.do()

    yield (vpc := done(example.create_vpc, name="test", cidr=CIDR))
    yield (gateway := done(example.create_gateway, name="test", vpc=vpc[1]))
    spec = example.SubnetSpec("10.0.0.0/24", "eu-west-1a")
    yield (subnet := done(example.create_subnet, subnet=spec, name="test", vpc=vpc[1]))
    yield done(example.create_security_group, name="test", vpc=vpc[1], ports=[80, 443])
    yield (table := done(example.create_route_table, name="test", vpc=vpc[1]))
    yield done(example.add_default_route, table=table[1], gateway=gateway[1])
    yield done(example.associate, subnet=subnet[1], table=table[1])


def left(aws: Aws, site: Site, saga_id: str) -> dict[str, int]:
    """How many resources of each kind the API lists for a saga, kinds with none left out."""
    ec2 = aws.ec2(site)
    kinds: list[Kind] = ["vpc", *PARTS]
    counts = {kind: len(tagged(ec2, kind, SAGA_TAG, saga_id)) for kind in kinds}
    return {kind: count for kind, count in counts.items() if count}


def refused_with(call: Callable[[], object]) -> str:
    with pytest.raises(boto.ClientError) as caught:
        call()
    return str(caught.value.response.get("Error", {}).get("Code"))


ALL = {"vpc": 1, "internet-gateway": 1, "subnet": 1, "security-group": 1, "route-table": 1}


def test_every_action_run_twice_under_its_key_makes_one_thing_and_returns_it_again(
    aws: Aws, site: Site
) -> None:
    for step, output in steps_of(aws, site, "twice"):
        assert step.do() == output
    assert left(aws, site, "twice") == ALL
    table = tagged(aws.ec2(site), "route-table", SAGA_TAG, "twice")[0]
    assert len(table["Associations"]) == 1
    assert [r.get("GatewayId", "")[:4] for r in table["Routes"]] == ["loca", "igw-"]
    group = tagged(aws.ec2(site), "security-group", SAGA_TAG, "twice")[0]
    assert [rule["FromPort"] for rule in group["IpPermissions"]] == [80, 443]


@pytest.mark.parametrize("known", [True, False], ids=["with its output", "without its output"])
def test_every_undo_removes_what_its_action_made_and_may_run_twice(aws: Aws, site: Site, known: bool) -> None:
    saga_id = f"undo-{known}"
    steps = list(steps_of(aws, site, saga_id))
    assert left(aws, site, saga_id) == ALL
    for step, output in reversed(steps):
        for _ in range(2):
            step.undo(output if known else None)
    assert left(aws, site, saga_id) == {}


def test_an_undo_of_an_action_that_never_took_effect_finds_nothing_and_is_content(
    aws: Aws, site: Site
) -> None:
    done = list(steps_of(aws, site, "other"))
    for step, _ in done:
        Step(aws, "never-ran", step.action, **step.inputs | _strangers(step)).undo(None)
    assert left(aws, site, "other") == ALL


def _strangers(step: Step) -> dict[str, Any]:
    # Inputs of a saga that stopped before it had a table or subnet of its own.
    names = {"table": "rtb-00000000000000000", "subnet": "subnet-00000000000000000"}
    return {name: value for name, value in names.items() if isinstance(step.inputs.get(name), str)}


def test_an_undo_removes_what_was_made_twice_because_the_first_was_listed_too_late(
    aws: Aws, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = vpc_step(aws, site, "late")
    with monkeypatch.context() as patch:
        patch.setattr(aws, "find", lambda *_: None)
        first, second = step.do(), step.do()
    assert left(aws, site, "late") == {"vpc": 2}
    step.undo(second)
    assert first != second
    assert left(aws, site, "late") == {}


def test_wildcards_in_a_saga_id_do_not_reach_the_resources_of_other_sagas(aws: Aws, site: Site) -> None:
    ids = ["a1", "a*", "a?", "a[1]", "a\\"]
    vpcs = [vpc_step(aws, site, saga_id).do() for saga_id in ids]
    assert len(set(vpcs)) == len(ids)
    vpc_step(aws, site, "a*").undo(None)
    assert [left(aws, site, saga_id) for saga_id in ids] == [{"vpc": 1}, {}, *[{"vpc": 1}] * 3]


def test_a_saga_id_of_the_greatest_length_is_carried_by_the_tags(aws: Aws, site: Site) -> None:
    saga_id = "é" * 200
    step = Step(aws, saga_id, example.create_vpc, site=site, name="test", cidr=CIDR)
    step.do_ctx.node = step.undo_ctx.node = "n" * 200
    vpc = step.do()
    assert step.do() == vpc
    listed = aws.ec2(site).describe_vpcs(VpcIds=[vpc])["Vpcs"][0]
    values = [tag.get("Value", "") for tag in listed.get("Tags", [])]
    assert max(map(len, values)) <= 256  # EC2's limit, which moto does not keep
    step.undo(None)
    assert refused_with(lambda: aws.ec2(site).describe_vpcs(VpcIds=[vpc])) == "InvalidVpcID.NotFound"


def test_the_api_refuses_to_take_parts_away_in_the_wrong_order(aws: Aws, site: Site) -> None:
    outputs = {step.action.name: output for step, output in steps_of(aws, site, "order")}
    ec2 = aws.ec2(site)
    deletes: list[Callable[[], object]] = [
        lambda: ec2.delete_vpc(VpcId=outputs["create_vpc"]),
        lambda: ec2.delete_internet_gateway(InternetGatewayId=outputs["create_gateway"]),
        lambda: ec2.delete_route_table(RouteTableId=outputs["create_route_table"]),
    ]
    assert [refused_with(delete) for delete in deletes] == ["DependencyViolation"] * 3
    assert left(aws, site, "order") == ALL


def test_credentials_of_another_account_are_refused_before_anything_is_taken_for_gone(
    aws: Aws, site: Site
) -> None:
    elsewhere = Site(site.region, "999999999999", site.endpoint_url)
    with pytest.raises(Permanent, match="account 999999999999"):
        vpc_step(aws, elsewhere, "elsewhere").undo("vpc-00000000000000000")


def test_a_request_that_is_refused_for_good_is_not_tried_again(aws: Aws, site: Site) -> None:
    step = Step(aws, "bad", example.create_vpc, site=site, name="bad", cidr="10.0.0.0/99")
    with pytest.raises(Permanent, match="InvalidParameterValue"):
        step.do()


def test_a_server_that_cannot_be_reached_is_told_apart_from_one_that_refuses(site: Site) -> None:
    with pytest.raises(boto.ConnectionError):
        account_of(site.region, "http://127.0.0.1:9")
