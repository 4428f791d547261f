"""The robot as OPC 40010-1 shows it: one system, one motion device, its axes, controller, task and safety state.

All of it is read-only and for information: nothing in it is fit for functional safety, as the specification itself says.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from asyncua import ua

from lehrling.deploy.cell_config import CellConfig
from lehrling.deploy.handshake_image import Commands, Mode
from lehrling.deploy.opcua_model import DEVICE_SET
from lehrling.deploy.opcua_types import Space
from lehrling.deploy.runtime import Axis, Phase, RuntimeState

SYSTEM: Final = "MotionDeviceSystem"
ROTARY, LINEAR = 1, 3
CATEGORIES = ("OTHER", "ARTICULATED_ROBOT", "SCARA_ROBOT", "CARTESIAN_ROBOT", "SPHERICAL_ROBOT", "PARALLEL_ROBOT")
CONTINUOUS_NS = 2_000_000_000
"""Speeds further apart say nothing about the acceleration between them."""
UNITS: Mapping[str, tuple[str, str]] = {
    "rad": ("C81", "radian"),
    "rad/s": ("2A", "radian per second"),
    "rad/s²": ("2B", "radian per second squared"),
    "m": ("MTR", "metre"),
    "m/s": ("MTS", "metre per second"),
    "m/s²": ("MSK", "metre per second squared"),
    "kg": ("KGM", "kilogram"),
    "°C": ("CEL", "degree Celsius"),
}


def unit(sign: str) -> ua.EUInformation:
    """Return a unit as UNECE recommendation 20 names it; its number is the code's characters (OPC 10000-8 5.6.4.3)."""
    code, words = UNITS[sign]
    number = struct.unpack(">I", code.encode().rjust(4, b"\0"))[0]
    return ua.EUInformation(
        NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact",
        UnitId=number,
        DisplayName=ua.LocalizedText(sign),
        Description=ua.LocalizedText(words),
    )


class RoboticsView:
    """Builds the instances and keeps their values."""

    def __init__(self, space: Space, config: CellConfig) -> None:
        self._space, self._config = space, config
        self._device = f"{SYSTEM}/MotionDevices/{config.robot.name}"
        self._controller = f"{SYSTEM}/Controllers/Lehrling"
        self._task = f"{self._controller}/TaskControls/Policy"
        self._safety = f"{SYSTEM}/SafetyStates/State"
        self._shown: dict[str, object] = {}
        self._before: tuple[int, Mapping[str, Axis]] = (0, {})

    async def build(self) -> None:
        """Add every instance and what does not change."""
        space = self._space
        device_set = ua.NodeId(ua.Int32(DEVICE_SET), ua.Int16(space.indexes["DI"]))
        await space.add_instance("R:MotionDeviceSystemType", SYSTEM, device_set)
        optional = ("R:OnPath", "R:InControl", "R:FlangeLoad")
        await self._add("R:MotionDeviceType", self._device, optional)
        await self._add("R:ControllerType", self._controller)
        await self._add("R:SafetyStateType", self._safety)
        await self._add("R:TaskControlType", self._task, ("R:ExecutionMode",))
        await self._add("DI:SoftwareType", f"{self._controller}/Software/Lehrling")
        for axis in self._config.robot.axes:
            await self._add_axis(axis.name, axis.unit)
        await space.refer(self._controller, "R:Controls", self._device)
        await space.refer(self._task, "R:Controls", self._device)
        await space.refer(self._controller, "R:HasSafetyStates", self._safety)
        await self._say_nameplates()

    async def _add(self, type_: str, path: str, optional: tuple[str, ...] = ()) -> None:
        await self._space.add_instance(type_, path, self._space.nodes[path.rpartition("/")[0]], optional)

    async def _add_axis(self, name: str, sign: str) -> None:
        path, train = f"{self._device}/Axes/{name}", f"{self._device}/PowerTrains/{name}"
        await self._add("R:AxisType", path, ("R:ActualSpeed", "R:ActualAcceleration"))
        await self._add("R:PowerTrainType", train)
        await self._space.add_instance("R:MotorType", f"{train}/Motor", self._space.nodes[train])
        await self._space.refer(train, "R:Moves", path)
        await self._space.refer(path, "R:Requires", train)
        await self._write(f"{path}/MotionProfile", ROTARY if sign == "rad" else LINEAR)
        for value, of in (("ActualPosition", sign), ("ActualSpeed", f"{sign}/s"), ("ActualAcceleration", f"{sign}/s²")):
            await self._write(f"{path}/ParameterSet/{value}/EngineeringUnits", unit(of))
        await self._write(f"{train}/Motor/ParameterSet/MotorTemperature/EngineeringUnits", unit("°C"))
        await self._nameplate(f"{train}/Motor", "unknown", "unknown", "", "")

    async def _nameplate(self, path: str, manufacturer: str, model: str, code: str, serial: str) -> None:
        await self._write(f"{path}/Manufacturer", ua.LocalizedText(manufacturer))
        await self._write(f"{path}/Model", ua.LocalizedText(model))
        await self._write(f"{path}/ProductCode", code)
        await self._write(f"{path}/SerialNumber", serial)

    async def _say_nameplates(self) -> None:
        robot = self._config.robot
        await self._nameplate(self._device, robot.manufacturer, robot.model, robot.product_code, robot.serial_number)
        await self._write(f"{self._device}/MotionDeviceCategory", CATEGORIES.index(robot.category))
        await self._write(f"{self._device}/FlangeLoad/Mass/EngineeringUnits", unit("kg"))
        await self._write(f"{self._device}/FlangeLoad/Mass", robot.payload_kg)
        await self._nameplate(self._controller, "Lehrling", "Lehrling cell", "", self._config.name)
        await self._write(f"{self._controller}/CurrentUser/Level", "operator")
        software = f"{self._controller}/Software/Lehrling"
        await self._write(f"{software}/Manufacturer", ua.LocalizedText("Lehrling"))
        await self._write(f"{software}/Model", ua.LocalizedText("lehrling-deploy"))
        await self._write(f"{software}/SoftwareRevision", version())
        await self._write(f"{self._task}/ComponentName", ua.LocalizedText("Policy"))
        await self._write(f"{self._task}/ParameterSet/ExecutionMode", 0)

    async def show(self, state: RuntimeState, commands: Commands, now_ns: int) -> None:
        """Show what the robot does."""
        recipe = self._config.recipes.get(state.recipe)
        loaded = state.phase in (Phase.READY, Phase.EXECUTING, Phase.STOPPING) and recipe is not None
        device, task, safety = (f"{path}/ParameterSet" for path in (self._device, self._task, self._safety))
        await self._write(f"{device}/SpeedOverride", state.speed * 100)
        await self._write(f"{device}/OnPath", state.phase is Phase.EXECUTING)
        await self._write(f"{device}/InControl", state.phase is not Phase.OFFLINE)
        await self._write(f"{task}/TaskProgramName", recipe.name if recipe else "")
        await self._write(f"{task}/TaskProgramLoaded", loaded)
        mode = commands.mode if commands.mode in list(Mode) else Mode.OTHER
        await self._write(f"{safety}/OperationalMode", int(mode))
        await self._write(f"{safety}/EmergencyStop", commands.emergency_stop)
        await self._write(f"{safety}/ProtectiveStop", commands.protective_stop or state.latched)
        await self._show_axes({} if state.phase is Phase.OFFLINE else state.axes, now_ns)

    async def _show_axes(self, axes: Mapping[str, Axis], now_ns: int) -> None:
        before_ns, before = self._before
        passed_ns = now_ns - before_ns
        for axis in self._config.robot.axes:
            path, measured, last = (
                f"{self._device}/Axes/{axis.name}/ParameterSet",
                axes.get(axis.name),
                before.get(axis.name),
            )
            known = measured is not None and last is not None and 0 < passed_ns < CONTINUOUS_NS
            change = (measured.velocity - last.velocity) / passed_ns * 1e9 if known and measured and last else None
            await self._write(f"{path}/ActualPosition", measured.position if measured else None)
            await self._write(f"{path}/ActualSpeed", measured.velocity if measured else None)
            await self._write(f"{path}/ActualAcceleration", change)
        self._before = (now_ns, axes)

    async def _write(self, path: str, value: object) -> None:
        if path not in self._shown or self._shown[path] != value:
            await self._space.write(path, value)
            self._shown[path] = value


def version() -> str:
    """Return the version of this software."""
    from importlib.metadata import version as installed

    return installed("lehrling-deploy")
