"""A network on AWS as a saga: a VPC and its parts, built as parallel as they allow, and undone in reverse order.

Each action may run more than once (a retry, a crash before its result was recorded), so each looks for what it made
before. Resources are found by a tag that holds the action's idempotency key; what has no tags (a route, an
association) is found by what it joins. Each undo takes `None` too, for an action of which nobody knows whether it took
effect. It deletes whatever stands under the action's key, and is content when nothing does.
"""

from __future__ import annotations

from dataclasses import dataclass

from compensate import Ctx, Permanent, Retry, action, fan_out, saga
from examples.aws_infrastructure.aws import Aws, Site, calls, client_token, tags

# EC2 refuses for a while what it will accept later: it is busy, or a new resource is not yet known everywhere.
TRIES = Retry(attempts=6, first=0.5, factor=2, longest=10, jitter=0.2)
ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class SubnetSpec:
    cidr: str
    zone: str


@dataclass(frozen=True)
class NetworkSpec:
    """The saga's params.

    Attributes:
        site: Region, account and endpoint.
        name: Goes into the Name tag of each resource.
        cidr: The network's addresses.
        subnets: At least one; inside `cidr`.
        ports: TCP ports that are open to the world.
        fail_at_the_end: Makes the last action fail, to see everything undone.
    """

    site: Site
    name: str
    cidr: str
    subnets: list[SubnetSpec]
    ports: list[int]
    fail_at_the_end: bool = False


@dataclass(frozen=True)
class Network:
    """The saga's output: the ids of everything that was built."""

    vpc: str
    gateway: str
    subnets: list[str]
    group: str
    table: str


# ------------------------------------------------------------------------------------------------ VPC


@action(retry=TRIES)
def create_vpc(ctx: Ctx[Aws], site: Site, name: str, cidr: str) -> str:
    aws, ec2 = ctx.deps, ctx.deps.ec2(site)
    with calls():
        vpc = aws.find(site, "vpc", ctx.key)
        if vpc is None:
            answer = ec2.create_vpc(CidrBlock=cidr, TagSpecifications=tags("vpc", ctx.key, name))
            vpc = answer["Vpc"].get("VpcId", "")
        ec2.get_waiter("vpc_available").wait(VpcIds=[vpc], WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    return aws.done(vpc)


@create_vpc.undo(unknown=True, retry=TRIES)
def delete_vpc(ctx: Ctx[Aws], vpc: str | None) -> None:
    site: Site = ctx.inputs["site"]
    for made in ctx.deps.made(site, "vpc", ctx.do_key, vpc):
        with calls("InvalidVpcID.NotFound"):
            ctx.deps.ec2(site).delete_vpc(VpcId=made)


# --------------------------------------------------------- internet gateway ∥ subnets ∥ security group


@action(retry=TRIES)
def create_gateway(ctx: Ctx[Aws], site: Site, name: str, vpc: str) -> str:
    """Creates and attaches it. One action, because the two are looked for, repeated and undone as one."""
    aws, ec2 = ctx.deps, ctx.deps.ec2(site)
    with calls():
        gateway = aws.find(site, "internet-gateway", ctx.key)
        if gateway is None:
            answer = ec2.create_internet_gateway(TagSpecifications=tags("internet-gateway", ctx.key, name))
            gateway = answer["InternetGateway"].get("InternetGatewayId", "")
    with calls("Resource.AlreadyAssociated"):
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    return aws.done(gateway)


@create_gateway.undo(unknown=True, retry=TRIES)
def delete_gateway(ctx: Ctx[Aws], gateway: str | None) -> None:
    site: Site = ctx.inputs["site"]
    ec2 = ctx.deps.ec2(site)
    for made in ctx.deps.made(site, "internet-gateway", ctx.do_key, gateway):
        with calls("Gateway.NotAttached", "InvalidInternetGatewayID.NotFound"):
            ec2.detach_internet_gateway(InternetGatewayId=made, VpcId=ctx.inputs["vpc"])
        with calls("InvalidInternetGatewayID.NotFound"):
            ec2.delete_internet_gateway(InternetGatewayId=made)


@action(retry=TRIES)
def create_subnet(ctx: Ctx[Aws], subnet: SubnetSpec, *, site: Site, name: str, vpc: str) -> str:
    aws = ctx.deps
    with calls():
        found = aws.find(site, "subnet", ctx.key)
        if found is None:
            answer = aws.ec2(site).create_subnet(
                VpcId=vpc,
                CidrBlock=subnet.cidr,
                AvailabilityZone=subnet.zone,
                TagSpecifications=tags("subnet", ctx.key, name),
            )
            found = answer["Subnet"].get("SubnetId", "")
    return aws.done(found)


@create_subnet.undo(unknown=True, retry=TRIES)
def delete_subnet(ctx: Ctx[Aws], subnet: str | None) -> None:
    site: Site = ctx.inputs["site"]
    for made in ctx.deps.made(site, "subnet", ctx.do_key, subnet):
        with calls("InvalidSubnetID.NotFound"):
            ctx.deps.ec2(site).delete_subnet(SubnetId=made)


@action(retry=TRIES)
def create_security_group(ctx: Ctx[Aws], site: Site, name: str, vpc: str, ports: list[int]) -> str:
    aws, ec2 = ctx.deps, ctx.deps.ec2(site)
    with calls():
        group = aws.find(site, "security-group", ctx.key)
        if group is None:
            answer = ec2.create_security_group(
                GroupName=name,
                Description=f"Open ports of {name}",
                VpcId=vpc,
                TagSpecifications=tags("security-group", ctx.key, name),
            )
            group = answer["GroupId"]
    for port in ports:
        # One call a rule: a second run meets some that are there and some that are not, and EC2 takes all or none.
        with calls("InvalidPermission.Duplicate"):
            ec2.authorize_security_group_ingress(
                GroupId=group, IpProtocol="tcp", FromPort=port, ToPort=port, CidrIp=ANYWHERE
            )
    return aws.done(group)


@create_security_group.undo(unknown=True, retry=TRIES)
def delete_security_group(ctx: Ctx[Aws], group: str | None) -> None:
    site: Site = ctx.inputs["site"]
    for made in ctx.deps.made(site, "security-group", ctx.do_key, group):
        with calls("InvalidGroup.NotFound"):
            ctx.deps.ec2(site).delete_security_group(GroupId=made)


# -------------------------------------------------------------------------------------------- routing


@action(retry=TRIES)
def create_route_table(ctx: Ctx[Aws], site: Site, name: str, vpc: str) -> str:
    aws = ctx.deps
    with calls():
        table = aws.find(site, "route-table", ctx.key)
        if table is None:
            # The one call here that takes an idempotency token. EC2 then keeps even an early repeat from making a
            # second table; for the others, the look before is all there is. (moto ignores the token.)
            answer = aws.ec2(site).create_route_table(
                VpcId=vpc,
                ClientToken=client_token(ctx.key),
                TagSpecifications=tags("route-table", ctx.key, name),
            )
            table = answer["RouteTable"].get("RouteTableId", "")
    return aws.done(table)


@create_route_table.undo(unknown=True, retry=TRIES)
def delete_route_table(ctx: Ctx[Aws], table: str | None) -> None:
    site: Site = ctx.inputs["site"]
    for made in ctx.deps.made(site, "route-table", ctx.do_key, table):
        with calls("InvalidRouteTableID.NotFound"):
            ctx.deps.ec2(site).delete_route_table(RouteTableId=made)


@action(retry=TRIES)
def add_default_route(ctx: Ctx[Aws], site: Site, table: str, gateway: str) -> str:
    # The table is this saga's own: a default route that is there already was made by an earlier attempt.
    with calls("RouteAlreadyExists"):
        ctx.deps.ec2(site).create_route(RouteTableId=table, DestinationCidrBlock=ANYWHERE, GatewayId=gateway)
    return ctx.deps.done(ANYWHERE)


@add_default_route.undo(unknown=True, retry=TRIES)
def remove_default_route(ctx: Ctx[Aws], _route: str | None) -> None:
    # Its table and destination say all: whether the action's result is known makes no difference.
    with calls("InvalidRoute.NotFound", "InvalidRouteTableID.NotFound"):
        ctx.deps.ec2(ctx.inputs["site"]).delete_route(
            RouteTableId=ctx.inputs["table"], DestinationCidrBlock=ANYWHERE
        )


@action(retry=TRIES)
def associate(ctx: Ctx[Aws], subnet: str, *, site: Site, table: str) -> str:
    # EC2 refuses to join the same two again (moto gives the first association back): so look before.
    association = association_of(ctx.deps, site, table, subnet)
    with calls():
        if association is None:
            answer = ctx.deps.ec2(site).associate_route_table(RouteTableId=table, SubnetId=subnet)
            association = answer["AssociationId"]
    return ctx.deps.done(association)


@associate.undo(unknown=True, retry=TRIES)
def disassociate(ctx: Ctx[Aws], association: str | None) -> None:
    site: Site = ctx.inputs["site"]
    association = association or association_of(ctx.deps, site, ctx.inputs["table"], ctx.inputs["subnet"])
    with calls("InvalidAssociationID.NotFound"):
        if association:
            ctx.deps.ec2(site).disassociate_route_table(AssociationId=association)


def association_of(aws: Aws, site: Site, table: str, subnet: str) -> str | None:
    """The association of a subnet with a route table, or `None`."""
    with calls("InvalidRouteTableID.NotFound"):
        for described in aws.ec2(site).describe_route_tables(RouteTableIds=[table])["RouteTables"]:
            for association in described.get("Associations", []):
                if association.get("SubnetId") == subnet:
                    return association.get("RouteTableAssociationId")
    return None


# --------------------------------------------------------------------------------------- the last step


@action(retry=Retry(attempts=3, first=0.2, never=Permanent))
def verify(
    ctx: Ctx[Aws],
    spec: NetworkSpec,
    vpc: str,
    gateway: str,
    subnets: list[str],
    group: str,
    table: str,
) -> Network:
    """Asks EC2 whether every subnet has its way out. Changes nothing, so it has no undo."""
    if spec.fail_at_the_end:
        raise Permanent("the network is refused at the last step, as ordered (fail_at_the_end)")
    with calls():
        described = ctx.deps.ec2(spec.site).describe_route_tables(RouteTableIds=[table])["RouteTables"][0]
        ways_out = {
            route.get("GatewayId") for route in described.get("Routes", []) if route.get("State") == "active"
        }
        joined = {association.get("SubnetId") for association in described.get("Associations", [])}
        if gateway not in ways_out or not joined.issuperset(subnets):
            raise LookupError(f"{table} does not lead {subnets} to {gateway}: {described}")
    return Network(vpc, gateway, subnets, group, table)


@saga
def network(spec: NetworkSpec) -> Network:
    vpc = create_vpc(spec.site, spec.name, spec.cidr)

    gateway = create_gateway(spec.site, spec.name, vpc)
    subnets = fan_out(create_subnet, spec.subnets, site=spec.site, name=spec.name, vpc=vpc)
    group = create_security_group(spec.site, spec.name, vpc, spec.ports)

    table = create_route_table.after(gateway, subnets, group)(spec.site, spec.name, vpc)
    route = add_default_route(spec.site, table, gateway)
    joined = fan_out(associate, subnets, site=spec.site, table=table)

    return verify.after(route, joined)(spec, vpc, gateway, subnets, group, table)
