"""The cell's OPC UA server: who gets in, what they may do, and what they see."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import stat
import struct
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cell_rig import Server, asked, call, connected, node, read, serving
from certificates import self_signed
from watching import until

pytest.importorskip("asyncua")

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256, SecurityPolicyNone
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from cryptography import x509

from lehrling.datasets.errors import InputError
from lehrling.deploy.cell_exchange import Shown
from lehrling.deploy.cell_users import Users, add_user
from lehrling.deploy.handshake_image import Commands, Mode, Refusal, Status
from lehrling.deploy.opcua_certificate import application_uri, ensure_certificate
from lehrling.deploy.opcua_security import CellUserManager, read_trusted
from lehrling.deploy.runtime import Axis, Phase, Result, RuntimeState

STATUS = Status(
    heartbeat=7,
    ack_seq=4_000_000_000,
    refusal=Refusal.FAULT,
    state=Phase.EXECUTING,
    busy=True,
    error=True,
    error_code=4,
    error_text="refused by the guard",
    recipe=2,
    cycle=12,
    result=Result.FAILURE,
    model_hash="c0ffee",
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("cell")) as server:
        yield server


# --- who gets in ---------------------------------------------------------------------------------------------------------


def test_only_one_policy_is_offered_and_only_names_with_passwords(shared: Server) -> None:
    async def endpoints(url: str) -> list[Any]:
        return list(await Client(url).connect_and_get_server_endpoints())

    server = shared.cleared()
    (only,) = asked(endpoints(server.url))
    assert only.SecurityPolicyUri == SecurityPolicyBasic256Sha256.URI
    assert only.SecurityMode == ua.MessageSecurityMode.SignAndEncrypt
    assert [token.TokenType for token in only.UserIdentityTokens] == [ua.UserTokenType.UserName]
    certificate = x509.load_der_x509_certificate(only.ServerCertificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:lehrling:cell7"]
    assert stat.S_IMODE(server.config.opcua.key.stat().st_mode) == 0o600


def test_without_encryption_nobody_gets_in_even_with_the_password(shared: Server) -> None:
    async def unsecured(url: str, user: str | None) -> None:
        client = Client(url, timeout=10)
        if user:
            client.set_user(user)
            client.set_password("a password of the PLC")
        client.security_policy = SecurityPolicyNone()  # type: ignore[no-untyped-call]
        await client.connect_socket()
        try:
            await client.send_hello()
            await client.open_secure_channel()
            await client.create_session()
        finally:
            client.disconnect_socket()

    server = shared.cleared()
    for user in (None, "operator"):
        with pytest.raises(UaStatusCodeError) as refused:
            asked(unsecured(server.url, user))
        assert refused.value.code == StatusCodes.BadSecurityPolicyRejected


def test_a_wrong_name_or_password_does_not_get_in(tmp_path: Path) -> None:
    async def enter(url: str, user: str, password: str) -> None:
        client = await connected(url, tmp_path, user, password)
        await client.disconnect()

    wrong = (("operator", "wrong password"), ("nobody", "a password of the PLC"), ("operator", ""), ("admin", ""))
    with serving(tmp_path) as server:
        for user, password in wrong:
            with pytest.raises(UaStatusCodeError) as refused:
                asked(enter(server.url, user, password))
            assert refused.value.code in (StatusCodes.BadUserAccessDenied, StatusCodes.BadIdentityTokenInvalid)
            assert server.logins[-1] == (user, "refused")


def test_without_a_user_nobody_gets_in(shared: Server) -> None:
    async def enter(url: str) -> None:
        ensure_certificate(shared.folder / "c.der", shared.folder / "c.pem", application_uri("client"), [])
        client = Client(url, timeout=10)
        client.application_uri = application_uri("client")
        await client.set_security(
            SecurityPolicyBasic256Sha256, str(shared.folder / "c.der"), str(shared.folder / "c.pem")
        )
        await client.connect()

    with pytest.raises((UaError, ValueError)):
        asked(enter(shared.url))


def test_with_a_folder_of_trusted_certificates_others_do_not_get_in(tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    ensure_certificate(trusted / "other.der", tmp_path / "other.pem", application_uri("other"), [])

    async def enter(url: str) -> int:
        client = await connected(url, tmp_path)
        try:
            return int(await read(client, "Cell/Status/AckSeq"))
        finally:
            await client.disconnect()

    with serving(tmp_path, opcua={"trusted": "trusted"}) as server:
        with pytest.raises(UaStatusCodeError):
            asked(enter(server.url))
        assert server.logins == [("operator", "client certificate not trusted")]
    (trusted / "client.der").write_bytes((tmp_path / "client.der").read_bytes())
    with serving(tmp_path, opcua={"trusted": "trusted"}) as server:
        assert asked(enter(server.url)) == 0


@pytest.mark.parametrize(
    ("begins", "ends", "told"),
    [
        (timedelta(days=-2), timedelta(seconds=-1), "client certificate expired"),
        (timedelta(minutes=5), timedelta(days=2), "client certificate not valid yet"),
        (timedelta(days=-2), timedelta(days=2), "logged in"),
    ],
)
def test_a_trusted_certificate_counts_while_it_is_valid(
    tmp_path: Path, begins: timedelta, ends: timedelta, told: str
) -> None:
    (tmp_path / "trusted").mkdir()
    certificate = self_signed(tmp_path / "trusted", begins, ends)[0]
    (tmp_path / "trusted" / "server.key").unlink()
    add_user(tmp_path / "users.yaml", "plc1", "operator", "a password of the PLC")
    said: list[tuple[str, str]] = []
    manager = CellUserManager(
        Users.read(tmp_path / "users.yaml"),
        read_trusted(tmp_path / "trusted"),
        lambda name, what: said.append((name, what)),
    )
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    user = manager.get_user(None, "plc1", "a password of the PLC", der)  # type: ignore[arg-type]
    assert (user is not None, said) == (told == "logged in", [("plc1", told)])


def test_a_certificate_without_its_key_is_refused_and_both_are_kept_between_starts(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path / "a.der", tmp_path / "a.pem", "urn:lehrling:x", ["localhost", "10.0.0.7"])
    assert ensure_certificate(tmp_path / "a.der", tmp_path / "a.pem", "urn:lehrling:x", []) == first
    (tmp_path / "a.pem").unlink()
    with pytest.raises(InputError, match=r"a\.pem is not; bring it back"):
        ensure_certificate(tmp_path / "a.der", tmp_path / "a.pem", "urn:lehrling:x", [])


@pytest.mark.slow
def test_an_address_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with (
        serving(tmp_path) as server,
        pytest.raises(InputError, match="cannot listen"),
        serving(tmp_path, opcua={"port": server.opcua.port}),
    ):
        pass


def test_a_message_that_announces_gigabytes_is_cut_off_before_it_is_kept(
    shared: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", shared.opcua.port), 20) as raw:
        raw.settimeout(30)
        with contextlib.suppress(ConnectionError):
            raw.sendall(b"OPNF" + struct.pack("<I", 0x7FFFFFFF) + bytes(4 << 20))
            assert raw.recv(64) == b""
    until(lambda: "sent a message larger than was agreed" in caplog.text, timeout_s=20)


# --- what they may do ----------------------------------------------------------------------------------------------------


def test_an_observer_reads_and_subscribes_and_neither_writes_nor_calls(shared: Server) -> None:
    async def observe(url: str) -> None:
        client = await connected(url, shared.folder, "observer")
        try:
            assert await read(client, "Cell/Command/Enable") is False
            got: asyncio.Queue[Any] = asyncio.Queue()

            class Handler:
                def datachange_notification(self, _node: Any, value: Any, _data: Any) -> None:
                    got.put_nowait(value)

            subscription = await client.create_subscription(50, Handler())
            await subscription.subscribe_data_change(client.get_node(await node(client, "Cell/Status/CycleId")))
            assert await got.get() == 0
            for attempt in (
                client.get_node(await node(client, "Cell/Command/Enable")).write_value(True),
                call(client, "Start"),
                client.nodes.objects.add_object(2, "mine"),
                client.delete_nodes([client.get_node(await node(client, "Cell"))]),
            ):
                with pytest.raises(UaStatusCodeError) as refused:
                    await attempt
                assert refused.value.code == StatusCodes.BadUserAccessDenied
        finally:
            await client.disconnect()

    server = shared.cleared()
    asked(observe(server.url))
    assert server.exchange.commands() == Commands()


def test_an_operator_writes_the_command_image_and_nothing_else(shared: Server) -> None:
    async def operate(url: str) -> list[str]:
        client = await connected(url, shared.folder)
        try:
            await client.write_values(
                [
                    client.get_node(await node(client, f"Cell/Command/{name}"))
                    for name in ("RecipeId", "Enable", "CmdSeq")
                ],
                [
                    ua.DataValue(ua.Variant(2, ua.VariantType.UInt16)),
                    ua.DataValue(ua.Variant(True, ua.VariantType.Boolean)),
                    ua.DataValue(ua.Variant(5, ua.VariantType.UInt32)),
                ],
            )
            for attempt in (
                client.nodes.objects.add_object(2, "mine"),
                client.get_node(await node(client, "Cell/Status/Ready")).write_value(True),
                client.get_node(await node(client, "Cell/Command/Enable")).write_attribute(
                    AttributeIds.AccessLevel, ua.DataValue(ua.Variant(1, ua.VariantType.Byte))
                ),
            ):
                with pytest.raises(UaStatusCodeError):
                    await attempt
            return await writable(client)
        finally:
            await client.disconnect()

    server = shared.cleared()
    names = asked(operate(server.url))
    told = server.exchange.commands()
    assert (told.recipe, told.enable, told.seq) == (2, True, 5)
    assert sorted(names) == sorted(
        [
            "HeartbeatPlc",
            "CmdSeq",
            "Cmd",
            "RecipeId",
            "SpeedOverridePct",
            "Enable",
            "FaultAck",
            "OperationalMode",
            "EmergencyStop",
            "ProtectiveStop",
        ]
    )


async def writable(client: Client) -> list[str]:
    """Return every variable below Objects that says it can be written."""
    found: list[str] = []
    left, seen = [client.nodes.objects], set()
    while left:
        each = left.pop()
        if each.nodeid in seen:
            continue
        seen.add(each.nodeid)
        left += await each.get_children()
        variable = await each.read_node_class() == ua.NodeClass.Variable
        if variable and ua.AccessLevel.CurrentWrite in await each.get_access_level():
            found.append(str((await each.read_browse_name()).Name))
    return found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RecipeId", ua.Variant(2, ua.VariantType.UInt32)),
        ("RecipeId", ua.Variant([1, 2], ua.VariantType.UInt16)),
        ("RecipeId", ua.Variant(None, ua.VariantType.Null)),
        ("Enable", ua.Variant(1, ua.VariantType.UInt16)),
        ("Enable", ua.Variant([True], ua.VariantType.Boolean)),
        ("Enable", ua.Variant("true", ua.VariantType.String)),
    ],
)
def test_a_value_of_another_type_is_refused_and_the_image_stays(shared: Server, name: str, value: ua.Variant) -> None:
    async def write(url: str) -> None:
        client = await connected(url, shared.folder)
        try:
            with pytest.raises(UaStatusCodeError) as refused:
                await client.get_node(await node(client, f"Cell/Command/{name}")).write_value(ua.DataValue(value))
            assert refused.value.code == StatusCodes.BadTypeMismatch
            bad = ua.DataValue(
                ua.Variant(1, ua.VariantType.UInt16), ua.StatusCode(ua.UInt32(StatusCodes.BadNoCommunication))
            )
            with pytest.raises(UaStatusCodeError):
                await client.get_node(await node(client, "Cell/Command/Cmd")).write_value(bad)
        finally:
            await client.disconnect()

    server = shared.cleared()
    asked(write(server.url))
    assert server.exchange.commands() == Commands()


def test_where_s7_commands_opc_ua_only_shows(tmp_path: Path) -> None:
    async def operate(url: str) -> None:
        client = await connected(url, tmp_path)
        try:
            for attempt in (
                client.get_node(await node(client, "Cell/Command/Enable")).write_value(True),
                call(client, "Start"),
            ):
                with pytest.raises(UaStatusCodeError) as refused:
                    await attempt
                assert refused.value.code == StatusCodes.BadUserAccessDenied
            server.exchange.write(enable=True, recipe=3)
            while await read(client, "Cell/Command/RecipeId") != 3 or not await read(client, "Cell/Command/Enable"):
                await asyncio.sleep(0.01)
        finally:
            await client.disconnect()

    s7 = {"host": "127.0.0.1", "db": 40, "unauthenticated": True}
    with serving(tmp_path, handshake={"commands_from": "s7"}, s7=s7) as server:
        asked(operate(server.url))


# --- what they see -------------------------------------------------------------------------------------------------------


def test_the_status_image_is_shown(shared: Server) -> None:
    async def look(url: str) -> dict[str, Any]:
        client = await connected(url, shared.folder, "observer")
        try:
            while await read(client, "Cell/Status/AckSeq") != STATUS.ack_seq:
                await asyncio.sleep(0.01)
            folder = client.get_node(await node(client, "Cell/Status"))
            return {
                (await each.read_browse_name()).Name: await each.read_value() for each in await folder.get_children()
            }
        finally:
            await client.disconnect()

    server = shared.cleared()
    server.exchange.show(Shown(STATUS))
    assert asked(look(server.url)) == {
        "HeartbeatPolicy": 7,
        "AckSeq": 4_000_000_000,
        "Refusal": 3,
        "Linked": False,
        "State": 4,
        "Ready": False,
        "Busy": True,
        "Done": False,
        "Error": True,
        "ErrorCode": 4,
        "ErrorText": "refused by the guard",
        "ActiveRecipe": 2,
        "CycleId": 12,
        "Result": 2,
        "ModelHash": "c0ffee",
    }


def test_the_robot_is_shown_as_opc_40010_says(shared: Server) -> None:
    state = RuntimeState(
        Phase.EXECUTING, recipe=2, speed=0.5, axes={"joint1": Axis(1.5, -0.25), "finger": Axis(0.04, 0.0)}
    )

    async def look(url: str) -> None:
        client = await connected(url, shared.folder, "observer")
        system = "MotionDeviceSystem"
        axes = f"{system}/MotionDevices/arm/Axes"
        try:
            while await read(client, f"{system}/MotionDevices/arm/ParameterSet/SpeedOverride") != 50.0:
                await asyncio.sleep(0.01)
            assert await read(client, f"{system}/MotionDevices/arm/ParameterSet/OnPath") is True
            assert await read(client, f"{axes}/joint1/ParameterSet/ActualPosition") == 1.5
            assert await read(client, f"{axes}/joint1/ParameterSet/ActualSpeed") == -0.25
            unit = await read(client, f"{axes}/finger/ParameterSet/ActualPosition/EngineeringUnits")
            assert (unit.DisplayName.Text, unit.UnitId) == ("m", 5067858)
            unmeasured = client.get_node(await node(client, f"{axes}/joint2/ParameterSet/ActualPosition"))
            value = await unmeasured.read_data_value(raise_on_bad_status=False)
            assert value.StatusCode is not None
            assert value.StatusCode.name == "BadNotConnected"
            task = f"{system}/Controllers/Lehrling/TaskControls/Policy/ParameterSet"
            assert await read(client, f"{task}/TaskProgramName") == "shafts"
            assert await read(client, f"{task}/TaskProgramLoaded") is True
            assert await read(client, f"{system}/SafetyStates/State/ParameterSet/OperationalMode") == Mode.AUTOMATIC
            assert await read(client, f"{system}/SafetyStates/State/ParameterSet/ProtectiveStop") is True
            found = await client.nodes.objects.get_child(
                ["2:DeviceSet", "4:MotionDeviceSystem", "3:MotionDevices", "4:arm", "3:Axes", "4:joint1"]
            )
            assert found.nodeid == await node(client, f"{axes}/joint1")
        finally:
            await client.disconnect()

    server = shared.cleared()
    server.exchange.show(Shown(STATUS, state, Commands(mode=Mode.AUTOMATIC, protective_stop=True)))
    asked(look(server.url))


@pytest.mark.slow
def test_a_server_that_ends_leaves_no_thread_and_its_port_free(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        thread = server.opcua._thread
        port = server.opcua.port
    until(lambda: not thread.is_alive())
    with serving(tmp_path, opcua={"port": port}) as again:
        assert again.opcua.port == port
