"""Who may do what on a cell's OPC UA server: one security policy, named users, two roles, and limits for everybody.

asyncua 2.1.0 opens a channel without security for anybody, whatever policies it was given, and asks nothing about rights
on it. Discovery needs such a channel; everything else is refused on it here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from asyncua import ua
from asyncua.common.utils import Buffer, ServiceError
from asyncua.crypto.permission_rules import User as SessionUser
from asyncua.crypto.permission_rules import UserRole
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server
from asyncua.server.uaprocessor import UaProcessor
from asyncua.server.user_managers import UserManager
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lehrling.datasets.errors import InputError
from lehrling.deploy.cell_users import Role, Users
from lehrling.deploy.opcua_nodes import WRITE

MESSAGE_BYTES_MAX: Final = 1 << 20
CHUNK_BYTES_MAX: Final = 65_535
CERTIFICATE_BYTES_MAX: Final = 1 << 16
_log = logging.getLogger("lehrling.cell")
Told = Callable[[str, str], None]
"""Told of logins: user name, and what came of it."""


def _ids(*names: str) -> frozenset[ua.NodeId]:
    found = (getattr(ObjectIds, f"{name}Request_Encoding_DefaultBinary") for name in names)
    return frozenset(ua.NodeId(number, ua.Int16(0)) for number in found)


DISCOVERY = _ids("GetEndpoints", "FindServers", "CloseSecureChannel")
SESSION = _ids("CreateSession", "ActivateSession", "CloseSession")
OBSERVE = _ids(
    "Read",
    "Browse",
    "TranslateBrowsePathsToNodeIds",
    "CreateSubscription",
    "ModifySubscription",
    "DeleteSubscriptions",
    "CreateMonitoredItems",
    "ModifyMonitoredItems",
    "DeleteMonitoredItems",
    "SetMonitoringMode",
    "SetPublishingMode",
    "Publish",
    "Republish",
    "RegisterNodes",
    "UnregisterNodes",
)
ALLOWED: dict[Role, frozenset[ua.NodeId]] = {"observer": OBSERVE, "operator": OBSERVE | _ids("Write", "Call")}


class CellUser(SessionUser):
    """A user of a session. asyncua's own role is `User` for all: it never lets them change the address space."""

    def __init__(self, name: str, role: Role) -> None:
        super().__init__(role=UserRole.User, name=name)
        self.cell_role: Role = role


class CellUserManager(UserManager):
    """Checks passwords and, where a folder of them was given, client certificates."""

    def __init__(self, users: Users, trusted: frozenset[bytes] | None, told: Told) -> None:
        self._users, self._trusted, self._told = users, trusted, told

    def get_user(
        self,
        iserver: InternalServer,
        username: str | None = None,
        password: str | None = None,
        certificate: object = None,
    ) -> SessionUser | None:
        """Return who logs in, or None."""
        del iserver
        name = (username or "")[:64]
        if wrong := self._distrust(certificate):
            self._told(name, f"client certificate {wrong}")
            return None
        user = self._users.check(username or "", password or "")
        if user is None:
            self._told(name, "refused")
            return None
        self._told(name, "logged in")
        return CellUser(user.name, user.role)

    def _distrust(self, certificate: object) -> str:
        """Return what is wrong with a client's certificate; empty where it may come in."""
        if self._trusted is None:
            return ""
        if not isinstance(certificate, bytes) or certificate not in self._trusted:
            return "not trusted"
        read, now = x509.load_der_x509_certificate(certificate), datetime.now(UTC)
        if now > read.not_valid_after_utc:
            return "expired"
        return "not valid yet" if now < read.not_valid_before_utc else ""


def read_trusted(folder: Path) -> frozenset[bytes]:
    """Return the certificates of a folder, as DER.

    Raises:
        InputError: a file is no certificate, or there is none.
    """
    found = set()
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in (".der", ".pem", ".crt", ".cer"):
            continue
        content = path.read_bytes()[:CERTIFICATE_BYTES_MAX]
        try:
            load = x509.load_pem_x509_certificate if content.startswith(b"-----") else x509.load_der_x509_certificate
            found.add(load(content).public_bytes(Encoding.DER))
        except ValueError as error:
            raise InputError(f"Expected a client certificate (DER or PEM) in {path}: {error}.") from error
    if not found:
        raise InputError(f"Expected client certificates (.der, .pem, .crt, .cer) in {folder}, found none.")
    return frozenset(found)


class CellProcessor(UaProcessor):
    """Answers one connection, as far as its channel and its user allow."""

    async def _process_message(
        self, typeid: ua.NodeId, requesthdr: ua.RequestHeader, seqhdr: object, body: Buffer
    ) -> bool:
        policy = self._connection.security_policy
        secured = (
            policy.URI == SecurityPolicyBasic256Sha256.URI and policy.Mode == ua.MessageSecurityMode.SignAndEncrypt
        )
        if typeid not in DISCOVERY and not secured:
            raise ServiceError(StatusCodes.BadSecurityPolicyRejected)
        if typeid not in DISCOVERY | SESSION:
            user = self.session.user if self.session is not None else None
            if not isinstance(user, CellUser) or typeid not in ALLOWED[user.cell_role]:
                raise ServiceError(StatusCodes.BadUserAccessDenied)
        answered: bool = await super()._process_message(typeid, requesthdr, seqhdr, body)  # type: ignore[no-untyped-call]
        return answered


class CellProtocol(OPCUAProtocol):
    """One connection; what it may send is bounded before it is taken apart."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection."""
        super().connection_made(transport)
        if self.processor is not None:
            self.processor = CellProcessor(self.iserver, transport, self.limits)
            self.processor.set_policies(self.policies)  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Take bytes; close the connection where a message is announced that may not be so large."""
        super().data_received(data)
        if len(self._buffer) > CHUNK_BYTES_MAX and self.transport is not None:
            _log.warning("%s sent a message larger than was agreed; the connection is closed", self.peer_name)
            self._buffer = b""
            self.transport.abort()


class CellBinaryServer(BinaryServer):
    """Listens with `CellProtocol`."""

    def _make_protocol(self) -> OPCUAProtocol:
        return CellProtocol(self.iserver, self._policies, self.clients, self.closing_tasks, self.limits)


class CellInternalServer(InternalServer):
    """asyncua's server core with tighter limits."""

    def __init__(self, user_manager: UserManager, sessions_max: int) -> None:
        super().__init__(user_manager=user_manager)
        self.allow_remote_admin = False
        self.supported_tokens = (ua.UserNameIdentityToken,)  # type: ignore[assignment]
        # More than sessions: connections that never log in are closed after a while, and must not shut the PLC out.
        self.max_connections = 4 * sessions_max
        self.max_subscriptions = 4 * sessions_max
        self.max_pending_activation_seconds = 10.0
        self.max_session_timeout_ms = 60_000
        self.max_unacked_messages_per_subscription = 100
        self.max_monitored_item_queue_size = 100
        self.max_pending_messages_per_connection = 100

    async def stop(self) -> None:
        """End; asyncua would wait for up to a second for its clock."""
        if self.time_task is not None:
            self.time_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.time_task
            self.time_task = None
        await super().stop()

    def decrypt_user_token(self, isession: InternalSession, token: ua.UserNameIdentityToken) -> tuple[str, str]:
        """Return user and password; RSA 1.5, which can be guessed piece by piece, is refused."""
        if token.EncryptionAlgorithm and token.EncryptionAlgorithm.endswith("rsa-1_5"):
            raise ServiceError(StatusCodes.BadIdentityTokenRejected)
        return super().decrypt_user_token(isession, token)


def make_read_only(server: Server) -> None:
    """Take the right to write from every node there is; asyncua's standard nodes give it for some."""
    space = server.iserver.aspace
    for node in list(space.keys()):
        for attribute in (AttributeIds.AccessLevel, AttributeIds.UserAccessLevel):
            kept = space[node].attributes.get(attribute)
            if kept is not None and kept.value is not None and kept.value.Value is not None:
                level = int(kept.value.Value.Value or 0) & ~WRITE
                kept.value = ua.DataValue(ua.Variant(level, ua.VariantType.Byte))


class CellServer(Server):
    """asyncua's server on `CellBinaryServer`."""

    async def start(self) -> None:
        """Listen; as asyncua's `start`, which names its own classes."""
        await self._setup_server_nodes()
        await self.iserver.start()
        host, port = self._get_bind_socket_info()
        assert host is not None
        assert port is not None
        self.bserver = CellBinaryServer(self.iserver, host, port, self.limits)
        self.bserver.set_policies(self._policies)
        try:
            await self.bserver.start()
        except BaseException:
            await self.iserver.stop()
            raise
