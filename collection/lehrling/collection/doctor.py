"""Find out whether this computer can record without loss, before it is too late."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lehrling.collection import doctor_clock, doctor_dds, doctor_disk, doctor_machine, doctor_network, doctor_ros
from lehrling.collection.doctor_disk import DiskSpeed, existing, measure_disk
from lehrling.collection.doctor_host import Host
from lehrling.collection.doctor_load import load_of
from lehrling.collection.doctor_report import DoctorReport, Finding
from lehrling.datasets.embodiment import Embodiment


def diagnose(
    dataset: Path | None = None, embodiment: Embodiment | None = None, host: Host | None = None
) -> DoctorReport:
    """Check ROS, middleware, memory, network, disk, clocks and packages, in less than three seconds on an idle computer.

    Args:
        dataset: the directory that will hold the dataset, or one above it, is where the disk is measured; at most
            50 MB are written for a moment. None leaves the disk out.
        embodiment: what will be recorded; sizes and rates are judged against it.
        host: the computer; this one, unless a test gives another.
    """
    host = host or Host.this()
    with ThreadPoolExecutor(max_workers=1) as aside:
        pybullet = aside.submit(doctor_machine.probe_pybullet, host)
        findings = [*_ros(host, embodiment), *_memory(host, embodiment), *_machine(host)]
        findings += _disk(host, dataset, embodiment) if dataset is not None else []
        findings.append(doctor_machine.check_pybullet(pybullet.result()))
    return DoctorReport(tuple(findings))


def _ros(host: Host, embodiment: Embodiment | None) -> list[Finding]:
    found = [doctor_ros.check_installation(host), doctor_ros.check_middleware(host), doctor_ros.check_domain(host)]
    if embodiment is not None:
        found.append(doctor_ros.check_message_types(host, set(embodiment.binding.topics.values())))
    return found


def _memory(host: Host, embodiment: Embodiment | None) -> list[Finding]:
    found = []
    if doctor_ros.middleware(host) in doctor_ros.FAST_DDS:
        load = load_of(embodiment) if embodiment is not None else None
        found = [doctor_dds.check_segment(host, load), doctor_dds.check_participants(host, load)]
        found.append(doctor_dds.check_shm(host))
    return [*found, doctor_network.check_socket_buffers(host), doctor_network.check_fragments(host)]


def _disk(host: Host, dataset: Path, embodiment: Embodiment | None) -> list[Finding]:
    directory, load = existing(dataset), load_of(embodiment) if embodiment is not None else None
    speed: DiskSpeed | OSError
    try:
        speed = measure_disk(directory)
    except OSError as error:
        speed = error
    return [
        doctor_disk.check_disk(host, directory, load, speed),
        doctor_disk.check_free_space(host, directory, load),
    ]


def _machine(host: Host) -> list[Finding]:
    return [
        doctor_clock.check_synchronisation(host, doctor_clock.read_kernel_clock()),
        doctor_clock.check_resolution(host),
        doctor_machine.check_processor(host),
        doctor_machine.check_packages(host, doctor_machine.installed_rooms()),
        doctor_machine.check_codec(doctor_machine.zarr_codec),
    ]
