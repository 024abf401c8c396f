"""The demo's saga is proven, against the AWS API that moto stands in for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from compensate.testing import prove_saga
from examples.aws_infrastructure.aws import Aws, Site, account_of
from examples.aws_infrastructure.moto_server import environment
from examples.aws_infrastructure.saga import NetworkSpec, SubnetSpec, network

REGION = "eu-west-1"


@pytest.fixture
def cloud() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment().items():
            patch.setenv(name, value)
        # Thousands of machine images, loaded at each reset, that no network needs.
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        with mock_aws() as mock:
            yield mock


def resources(aws: Aws, site: Site) -> dict[str, list[Any]]:
    """Everything of the example's kinds that stands, with names in place of ids that the API makes up."""
    ec2: Any = aws.ec2(site)

    def name(tagged: Any) -> str:
        return next((tag["Value"] for tag in tagged.get("Tags", []) if tag["Key"] == "compensate:key"), "")

    tables = [table for table in ec2.describe_route_tables()["RouteTables"] if name(table)]
    gateways = ec2.describe_internet_gateways()["InternetGateways"]
    groups = [group for group in ec2.describe_security_groups()["SecurityGroups"] if name(group)]
    return {
        "vpcs": sorted((name(vpc), vpc["CidrBlock"]) for vpc in ec2.describe_vpcs()["Vpcs"]),
        "gateways": sorted((name(gateway), len(gateway["Attachments"])) for gateway in gateways),
        "subnets": sorted(
            (name(one), one["CidrBlock"]) for one in ec2.describe_subnets()["Subnets"] if name(one)
        ),
        "groups": sorted(
            (name(group), sorted(rule["FromPort"] for rule in group["IpPermissions"])) for group in groups
        ),
        "tables": sorted(
            (
                name(table),
                sorted(route["DestinationCidrBlock"] for route in table["Routes"]),
                sum("SubnetId" in association for association in table["Associations"]),
            )
            for table in tables
        ),
    }


@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_the_demos_saga_is_proven(cloud: Any) -> None:
    aws = Aws(settle=0)
    site = Site(REGION, account_of(REGION, None))
    aws.ec2(site)
    spec = NetworkSpec(site, "proof", "10.0.0.0/16", [SubnetSpec("10.0.1.0/24", f"{REGION}a")], [443])
    proof = prove_saga(
        network, {"spec": spec}, setup=cloud.reset, world=lambda: resources(aws, site), deps=aws
    )
    assert proof.nodes == (
        "create_vpc",
        "create_gateway",
        "create_security_group",
        "create_subnet[0]",
        "create_route_table",
        "add_default_route",
        "associate[0]",
        "verify",
    )
    assert proof.not_run == proof.not_undone == ()
    assert proof.by_kind["an action in doubt is undone with no output"] == 7
    assert proof.scenarios == 100
