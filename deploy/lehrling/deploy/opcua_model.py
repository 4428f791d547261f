"""The part of OPC 40010-1 (Robotics 1.01) and OPC 10000-100 (DI) that a cell shows, as a table.

Numbers are those of the official NodeSets; the tests compare every line with them. A placeholder stands in angle brackets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DI, ROBOTICS = "http://opcfoundation.org/UA/DI/", "http://opcfoundation.org/UA/Robotics/"
DEVICE_SET = 5001


class Rule(StrEnum):
    """Modelling rules."""

    MANDATORY = "M"
    OPTIONAL = "O"
    MANDATORY_PLACEHOLDER = "MP"
    OPTIONAL_PLACEHOLDER = "OP"


class Kind(StrEnum):
    """What a part of a type is."""

    OBJECT = "object"
    VARIABLE = "variable"
    ANALOG = "analog"
    PROPERTY = "property"


@dataclass(frozen=True)
class Part:
    """An instance declaration.

    Attributes:
        number: in the namespace of the type that holds it.
        name: with `DI:` or `R:` before it; without, of OPC UA itself.
        type: a data type for variables, a type definition for objects.
    """

    number: int
    name: str
    kind: Kind
    type: str
    rule: Rule
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class ObjectType:
    """An object type; `name` says its namespace, `base` the type that it widens."""

    number: int
    name: str
    base: str
    parts: tuple[Part, ...] = ()
    abstract: bool = False


def _object(number: int, name: str, type_: str, rule: Rule, *parts: Part) -> Part:
    return Part(number, name, Kind.OBJECT, type_, rule, parts)


def _folder(number: int, name: str, rule: Rule, *parts: Part) -> Part:
    return Part(number, name, Kind.OBJECT, "Folder", rule, parts)


def _parameters(number: int, *parts: Part) -> Part:
    return Part(number, "DI:ParameterSet", Kind.OBJECT, "BaseObject", Rule.MANDATORY, parts)


def _variable(number: int, name: str, type_: str, rule: Rule = Rule.MANDATORY) -> Part:
    return Part(number, name, Kind.VARIABLE, type_, rule)


def _property(number: int, name: str, type_: str, rule: Rule = Rule.MANDATORY) -> Part:
    return Part(number, name, Kind.PROPERTY, type_, rule)


def _analog(number: int, name: str, unit: int, rule: Rule = Rule.MANDATORY) -> Part:
    return Part(number, name, Kind.ANALOG, "Double", rule, (_property(unit, "EngineeringUnits", "EUInformation"),))


def _nameplate(manufacturer: int, model: int, code: int, serial: int) -> tuple[Part, ...]:
    return (
        _property(manufacturer, "DI:Manufacturer", "LocalizedText"),
        _property(model, "DI:Model", "LocalizedText"),
        _property(code, "DI:ProductCode", "String"),
        _property(serial, "DI:SerialNumber", "String"),
    )


O, MP, OP, M = Rule.OPTIONAL, Rule.MANDATORY_PLACEHOLDER, Rule.OPTIONAL_PLACEHOLDER, Rule.MANDATORY  # noqa: E741

OBJECT_TYPES: tuple[ObjectType, ...] = (
    ObjectType(
        1001,
        "DI:TopologyElementType",
        "BaseObject",
        (
            _object(
                5002, "DI:ParameterSet", "BaseObject", O, _variable(6017, "DI:<ParameterIdentifier>", "BaseData", MP)
            ),
        ),
        True,
    ),
    ObjectType(
        15063,
        "DI:ComponentType",
        "DI:TopologyElementType",
        (
            _property(15086, "DI:Manufacturer", "LocalizedText", O),
            _property(15088, "DI:Model", "LocalizedText", O),
            _property(15090, "DI:SoftwareRevision", "String", O),
            _property(15092, "DI:ProductCode", "String", O),
            _property(15095, "DI:SerialNumber", "String", O),
            _property(15099, "DI:ComponentName", "LocalizedText", O),
        ),
        True,
    ),
    ObjectType(
        15106,
        "DI:SoftwareType",
        "DI:ComponentType",
        (
            _property(15129, "DI:Manufacturer", "LocalizedText"),
            _property(15131, "DI:Model", "LocalizedText"),
            _property(15133, "DI:SoftwareRevision", "String"),
        ),
    ),
    ObjectType(1018, "R:LoadType", "BaseObject", (_analog(6723, "R:Mass", 6728),)),
    ObjectType(18175, "R:UserType", "BaseObject", (_property(18176, "R:Level", "String"),)),
    ObjectType(
        1019,
        "R:MotorType",
        "DI:ComponentType",
        (_parameters(5105, _analog(6757, "R:MotorTemperature", 6762)), *_nameplate(17101, 17103, 17109, 17104)),
    ),
    ObjectType(
        16794, "R:PowerTrainType", "DI:ComponentType", (_object(15998, "R:<MotorIdentifier>", "R:MotorType", MP),)
    ),
    ObjectType(
        16601,
        "R:AxisType",
        "DI:ComponentType",
        (
            _parameters(
                16602,
                _analog(16662, "R:ActualPosition", 16667),
                _analog(16668, "R:ActualSpeed", 16673, O),
                _analog(16674, "R:ActualAcceleration", 16679, O),
            ),
            _property(16637, "R:MotionProfile", "R:AxisMotionProfileEnumeration"),
        ),
    ),
    ObjectType(
        1004,
        "R:MotionDeviceType",
        "DI:ComponentType",
        (
            _parameters(
                5029,
                _variable(16363, "R:OnPath", "Boolean", O),
                _variable(16364, "R:InControl", "Boolean", O),
                _variable(16365, "R:SpeedOverride", "Double"),
            ),
            *_nameplate(16351, 16353, 16359, 16354),
            _property(16362, "R:MotionDeviceCategory", "R:MotionDeviceCategoryEnumeration"),
            _folder(15305, "R:Axes", M, _object(15743, "R:<AxisIdentifier>", "R:AxisType", MP)),
            _folder(16443, "R:PowerTrains", M, _object(15905, "R:<PowerTrainIdentifier>", "R:PowerTrainType", MP)),
            _object(5091, "R:FlangeLoad", "R:LoadType", O, _analog(6624, "R:Mass", 15659)),
        ),
    ),
    ObjectType(
        1013,
        "R:SafetyStateType",
        "DI:ComponentType",
        (
            _parameters(
                5016,
                _variable(15912, "R:OperationalMode", "R:OperationalModeEnumeration"),
                _variable(15882, "R:EmergencyStop", "Boolean"),
                _variable(15913, "R:ProtectiveStop", "Boolean"),
            ),
        ),
    ),
    ObjectType(
        1011,
        "R:TaskControlType",
        "DI:ComponentType",
        (
            _parameters(
                15883,
                _variable(17874, "R:TaskProgramName", "String"),
                _variable(17875, "R:TaskProgramLoaded", "Boolean"),
                _variable(17876, "R:ExecutionMode", "R:ExecutionModeEnumeration", O),
            ),
            _property(17873, "DI:ComponentName", "LocalizedText"),
        ),
    ),
    ObjectType(
        1003,
        "R:ControllerType",
        "DI:ComponentType",
        (
            *_nameplate(17237, 17239, 17245, 17240),
            _object(17249, "R:CurrentUser", "R:UserType", M, _property(17250, "R:Level", "String")),
            _folder(15800, "R:Software", M, _object(18847, "R:<SoftwareIdentifier>", "DI:SoftwareType", MP)),
            _folder(15826, "R:TaskControls", M, _object(18881, "R:<TaskControlIdentifier>", "R:TaskControlType", MP)),
        ),
    ),
    ObjectType(
        1002,
        "R:MotionDeviceSystemType",
        "DI:ComponentType",
        (
            _folder(5002, "R:MotionDevices", M, _object(15008, "R:<MotionDeviceIdentifier>", "R:MotionDeviceType", MP)),
            _folder(5001, "R:Controllers", M, _object(15405, "R:<ControllerIdentifier>", "R:ControllerType", MP)),
            _folder(5010, "R:SafetyStates", M, _object(15697, "R:<SafetyStateIdentifier>", "R:SafetyStateType", MP)),
        ),
    ),
)

ENUMERATIONS: tuple[tuple[int, str, int, tuple[str, ...]], ...] = (
    (
        3006,
        "R:OperationalModeEnumeration",
        6022,
        ("OTHER", "MANUAL_REDUCED_SPEED", "MANUAL_HIGH_SPEED", "AUTOMATIC", "AUTOMATIC_EXTERNAL"),
    ),
    (3008, "R:AxisMotionProfileEnumeration", 6027, ("OTHER", "ROTARY", "ROTARY_ENDLESS", "LINEAR", "LINEAR_ENDLESS")),
    (
        18193,
        "R:MotionDeviceCategoryEnumeration",
        18194,
        (
            "OTHER",
            "ARTICULATED_ROBOT",
            "SCARA_ROBOT",
            "CARTESIAN_ROBOT",
            "SPHERICAL_ROBOT",
            "PARALLEL_ROBOT",
            "CYLINDRICAL_ROBOT",
        ),
    ),
    (18191, "R:ExecutionModeEnumeration", 18192, ("CYCLE", "CONTINUOUS", "STEP")),
)
"""Number, name, number of its `EnumStrings`, and these."""

REFERENCE_TYPES: tuple[tuple[int, str, str], ...] = (
    (4002, "R:Controls", "IsControlledBy"),
    (18178, "R:Moves", "IsMovedBy"),
    (18179, "R:Requires", "IsRequiredBy"),
    (18182, "R:HasSafetyStates", "SafetyStatesOf"),
)
"""Number, name and inverse name; all widen HierarchicalReferences."""
