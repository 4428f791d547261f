"""Bundles: what was not signed as it is, is refused before anything of it is loaded."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_disks import small_disk

from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.deploy.bundle import open_bundle, verify_bundle
from lehrling.deploy.bundle_keys import make_keys, read_private, sign, signed
from lehrling.deploy.bundle_make import BundleParts, make_bundle
from lehrling.deploy.bundle_manifest import FileFacts, Manifest, path_problem
from lehrling.deploy.guard_limits import load_guard_config

FORMS = ["folder", "tar"]


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """Make a pair of keys."""
    return make_keys(tmp_path / "plant")


@pytest.fixture
def parts(tmp_path: Path) -> BundleParts:
    """Lay out small files by the names of a policy's and a base's."""
    for folder, names in {
        "nut": ("policy.json", "policy_head.safetensors", "adapter_config.json", "README.md", "train.log"),
        "bolt": ("policy.json", "model/config.json", "model/model.safetensors"),
        "weights": (
            "config.json",
            "model-00001-of-00001.safetensors",
            "tokenizer.json",
            "optimizer.pt",
            "processor_config.json",
        ),
    }.items():
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{folder} {name}\n".encode() * 50)
    (tmp_path / "guard.yaml").write_text("clamps_max: 7\n")
    folders = {"nut": tmp_path / "nut", "bolt": tmp_path / "bolt"}
    return BundleParts(folders, tmp_path / "weights", "arm6", tmp_path / "guard.yaml")


@pytest.fixture(params=FORMS)
def bundle(request: pytest.FixtureRequest, parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path) -> Path:
    """Make a bundle, as a folder and as a tar."""
    out = tmp_path / ("cell7.tar" if request.param == "tar" else "cell7")
    make_bundle(parts, out, keys[0])
    return out


def test_a_bundle_brings_what_a_robot_needs_and_nothing_else(bundle: Path, keys: tuple[Path, Path]) -> None:
    report = verify_bundle(bundle, keys[1])
    assert report.name == "cell7"
    assert report.policies == ("bolt", "nut")
    assert (report.base, report.embodiment, report.guard, report.files) == (True, True, True, 13)
    folder = open_bundle(bundle, keys[1])
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "base/config.json", "base/model-00001-of-00001.safetensors", "base/processor_config.json", "base/tokenizer.json",
        "embodiment.yaml", "guard.yaml",
        "manifest.json", "manifest.sig", "policies/bolt/model/config.json", "policies/bolt/model/model.safetensors",
        "policies/bolt/policy.json", "policies/nut/README.md", "policies/nut/adapter_config.json",
        "policies/nut/policy.json", "policies/nut/policy_head.safetensors",
    ]  # fmt: skip
    assert (folder / "policies/nut/policy.json").read_bytes() == b"nut policy.json\n" * 50
    assert load_embodiment(folder / "embodiment.yaml").contract_hash == load_embodiment("arm6").contract_hash
    assert load_guard_config(folder / "guard.yaml").clamps_max == 7


def test_a_tar_is_what_tar_reads_and_is_unpacked_once(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    make_bundle(parts, tmp_path / "cell7.tar", keys[0])
    with tarfile.open(tmp_path / "cell7.tar", "r:") as archive:
        assert archive.getnames()[:2] == ["manifest.json", "manifest.sig"]
        assert all(member.isreg() and member.mode == 0o644 for member in archive)
    first = open_bundle(tmp_path / "cell7.tar", keys[1])
    assert first.parent == tmp_path / "cell7.tar.opened"
    stamp = (first / "guard.yaml").stat().st_mtime_ns
    assert open_bundle(tmp_path / "cell7.tar", keys[1]) == first
    assert (first / "guard.yaml").stat().st_mtime_ns == stamp
    (first / "guard.yaml").write_text("clamps_max: 900\n")
    with pytest.raises(DamageError, match=r"guard\.yaml in .* is not what was signed"):
        open_bundle(tmp_path / "cell7.tar", keys[1])
    assert open_bundle(tmp_path / "cell7.tar", keys[1], into=tmp_path / "robot") == tmp_path / "robot"


def test_another_key_is_refused(bundle: Path, tmp_path: Path) -> None:
    _, other = make_keys(tmp_path / "other")
    for check in (verify_bundle, open_bundle):
        with pytest.raises(DamageError, match="another key signed it, or it was changed"):
            check(bundle, other)
    assert not (tmp_path / "cell7.tar.opened").exists()


Change = Callable[[Path], object]


def swap(folder: Path, first: str, second: str) -> None:
    (folder / first).rename(folder / "kept")
    (folder / second).rename(folder / first)
    (folder / "kept").rename(folder / second)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: (f / "guard.yaml").write_text("clamps_max: 9\n"), "guard.yaml in .* it was changed"),
        (lambda f: (f / "policies/nut/policy.json").write_bytes(b""), "policies/nut/policy.json in .* changed"),
        (lambda f: (f / "policies/nut/evil.py").write_text("x"), "evil.py is not in the signed manifest: it was added"),
        (lambda f: (f / ".hidden").write_text("x"), ".hidden is not in the signed manifest"),
        (lambda f: (f / "base/config.json").unlink(), "base/config.json is missing"),
        (lambda f: swap(f, "base/config.json", "base/tokenizer.json"), "it was changed"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "manifest.sig").unlink(), "manifest.sig is missing"),
        (lambda f: (f / "manifest.sig").write_bytes(b"0" * 500), "larger than 129 bytes"),
        (lambda f: (f / "manifest.sig").write_bytes(b"00" * 64 + b"\n"), "another key signed it"),
        (lambda f: (f / "link").symlink_to("/etc/passwd"), "link is a link or no regular file"),
        (lambda f: os.mkfifo(f / "pipe"), "pipe is a link or no regular file"),
        (lambda f: (f / "out").symlink_to(f.parent), "out is a link"),
    ],
)
def test_a_changed_folder_is_refused_in_a_sentence(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path, change: Change, told: str
) -> None:
    make_bundle(parts, tmp_path / "cell7", keys[0])
    change(tmp_path / "cell7")
    with pytest.raises(DamageError, match=told):
        verify_bundle(tmp_path / "cell7", keys[1])
    with pytest.raises(DamageError, match=told):
        open_bundle(tmp_path / "cell7", keys[1])


def test_a_file_replaced_by_a_link_to_the_same_content_is_refused(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    make_bundle(parts, tmp_path / "cell7", keys[0])
    (tmp_path / "cell7/guard.yaml").unlink()
    (tmp_path / "cell7/guard.yaml").symlink_to(tmp_path / "guard.yaml")
    with pytest.raises(DamageError, match="a bundle holds none"):
        verify_bundle(tmp_path / "cell7", keys[1])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_a_tar_is_found(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path, data: st.DataObject
) -> None:
    whole, path = tmp_path / "whole.tar", tmp_path / "changed.tar"
    if not whole.exists():
        make_bundle(parts, whole, keys[0])
    content = bytearray(whole.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    path.write_bytes(content)
    with pytest.raises(DamageError):
        verify_bundle(path, keys[1])


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1024, 5000, -1, -512, -1024, -3000])
def test_a_tar_that_was_cut_or_grew_is_found(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path, size: int
) -> None:
    path = tmp_path / "cell7.tar"
    make_bundle(parts, path, keys[0])
    content = path.read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(DamageError):
        verify_bundle(path, keys[1])
    path.write_bytes(content + bytes(abs(size) + 1))
    with pytest.raises(DamageError):
        verify_bundle(path, keys[1])


def rebuilt(path: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> None:
    """Write a tar anew by Python's own module, with members changed."""
    with tarfile.open(path, "r:") as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    change(members)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))


def special(kind: bytes, name: str, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda m: m.insert(3, special(tarfile.SYMTYPE, "base/link", "/etc/passwd")),
            "a symbolic link named 'base/link'",
        ),
        (lambda m: m.insert(3, special(tarfile.LNKTYPE, "x", "../../x")), "a hard link named 'x'"),
        (lambda m: m.insert(3, special(tarfile.DIRTYPE, "../up")), r"a folder named '\.\./up'"),
        (lambda m: m.insert(3, special(tarfile.CHRTYPE, "dev")), "a device named 'dev'"),
        (lambda m: m.insert(3, (tarfile.TarInfo("../evil"), b"")), r"a file named '\.\./evil'"),
        (lambda m: m.insert(3, (tarfile.TarInfo("/etc/evil"), b"")), "a file named '/etc/evil'"),
        (lambda m: m.append((tarfile.TarInfo("more"), b"")), "nothing more was expected, but a file named 'more'"),
        (lambda m: m.pop(4), "was expected, but a file named"),
        (lambda m: m.pop(), "policy_head.safetensors was expected, but the archive ends"),
        (lambda m: m.insert(3, m[3]), "was expected, but a file named"),
        (lambda m: m.reverse(), "manifest.json was expected"),
        (lambda m: m.insert(3, (tarfile.TarInfo("x" * 300), b"")), "an extended header"),
        (lambda m: m.clear(), "no bundle|the archive ends"),
    ],
)
def test_a_changed_tar_is_refused_in_a_sentence(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path,
    change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None], told: str,
) -> None:  # fmt: skip
    path = tmp_path / "cell7.tar"
    make_bundle(parts, path, keys[0])
    rebuilt(path, change)
    with pytest.raises(DamageError, match=told):
        verify_bundle(path, keys[1])
    with pytest.raises(DamageError, match=told):
        open_bundle(path, keys[1], into=tmp_path / "robot")
    assert not (tmp_path / "robot").exists()
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".partial")]


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_archives_are_refused(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path, compression: str
) -> None:
    make_bundle(parts, tmp_path / "cell7", keys[0])
    path = tmp_path / "cell7.tar"
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
        archive.add(tmp_path / "cell7", ".")
    with pytest.raises(DamageError, match="expected a tar without compression"):
        verify_bundle(path, keys[1])


def test_a_header_that_claims_a_huge_manifest_takes_no_memory(keys: tuple[Path, Path], tmp_path: Path) -> None:
    info = tarfile.TarInfo("manifest.json")
    info.size = 1 << 45
    (tmp_path / "bomb.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(DamageError, match=r"manifest\.json was expected"):
        verify_bundle(tmp_path / "bomb.tar", keys[1])


def test_nothing_is_unpacked_from_a_tar_whose_last_byte_is_wrong(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "cell7.tar"
    make_bundle(parts, path, keys[0])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"nut policy_head.safetensors\n\0", b"nut policy_head.safetensorz\n\0"))
    with pytest.raises(DamageError, match=r"policy_head\.safetensors in .* it was changed"):
        open_bundle(path, keys[1])
    assert list((tmp_path / "cell7.tar.opened").iterdir()) == []


def forged(folder: Path, private: Path, files: dict[str, str]) -> None:
    """Write a folder signed by the right key, but with a manifest that no `make_bundle` writes."""
    folder.mkdir()
    facts = dict.fromkeys(files, FileFacts(bytes=0, sha256="0" * 64))
    manifest = Manifest.model_construct(name="x", made_at="", made_by="", files=facts)
    (folder / "manifest.json").write_bytes(manifest.encode())
    (folder / "manifest.sig").write_bytes(sign(read_private(private), manifest.encode()))


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a//b", "a/../b", ".x", "a/.x", "a\\b", "", "manifest.json", "a" * 101]
)
def test_paths_that_lead_elsewhere_are_refused_even_where_they_are_signed(
    keys: tuple[Path, Path], tmp_path: Path, path: str
) -> None:
    assert path_problem(path)
    forged(tmp_path / "forged", keys[0], {path: ""})
    with pytest.raises(DamageError, match="files"):
        verify_bundle(tmp_path / "forged", keys[1])


def test_a_signed_text_that_is_no_manifest_is_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for content in (b"[]", b"{", b'{"lehrling_bundle": 2}', b"\xff"):
        (tmp_path / "b/manifest.json").write_bytes(content)
        (tmp_path / "b/manifest.sig").write_bytes(sign(read_private(keys[0]), content))
        with pytest.raises(DamageError):
            verify_bundle(tmp_path / "b", keys[1])


def test_keys_are_made_once_and_the_private_one_is_its_owners(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, _ = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    with pytest.raises(InputError, match="keys are never replaced"):
        make_keys(tmp_path / "plant")
    key = read_private(private)
    line = sign(key, b"content")
    assert signed(key.public_key(), b"content", line)
    for wrong in (line.upper(), line[:-1] + b" ", b" " + line, line[:-2] + b"\n", b"", b"\xff" * 129):
        assert not signed(key.public_key(), b"content", wrong)
    assert not signed(key.public_key(), b"contens", line)


def test_what_is_no_key_is_refused(bundle: Path, keys: tuple[Path, Path], tmp_path: Path, parts: BundleParts) -> None:
    with pytest.raises(InputError, match="is no public key"):
        verify_bundle(bundle, keys[0])
    with pytest.raises(InputError, match="is no private key"):
        make_bundle(parts, tmp_path / "new", keys[1])
    with pytest.raises(InputError, match="no such file"):
        verify_bundle(bundle, tmp_path / "absent.pub")
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "ec.pub").write_bytes(pem)
    with pytest.raises(InputError, match="Expected an Ed25519 key"):
        verify_bundle(bundle, tmp_path / "ec.pub")


def test_parts_that_are_not_what_they_should_be_are_refused(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("clamps: 7\n")
    wrong = {
        "at least one policy": BundleParts({}),
        r"policy\.json": BundleParts({"x": tmp_path}),
        r"config\.json": BundleParts(parts.policies, tmp_path),
        "clamps": BundleParts(parts.policies, guard=tmp_path / "bad.yaml"),
        "an id of letters": BundleParts({"../up": tmp_path / "nut"}),
        "embodiment": BundleParts(parts.policies, embodiment="no-such-robot"),
    }
    for told, given_parts in wrong.items():
        with pytest.raises(InputError, match=told):
            make_bundle(given_parts, tmp_path / "out", keys[0])
    with pytest.raises(InputError, match="not there yet"):
        make_bundle(parts, tmp_path / "nut", keys[0])
    (tmp_path / "nut/tokenizer").mkdir()
    (tmp_path / "nut/tokenizer/a b.json").touch()
    with pytest.raises(InputError, match="cannot go into a bundle"):
        make_bundle(parts, tmp_path / "out", keys[0])
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="Expected a bundle"):
        verify_bundle(tmp_path / "out", keys[1])


def test_weights_that_a_hub_keeps_behind_links_come_along_as_files(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    weights = tmp_path / "weights/model-00001-of-00001.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    make_bundle(parts, tmp_path / "cell7", keys[0])
    assert verify_bundle(tmp_path / "cell7", keys[1]).files == 13


def test_a_full_disk_leaves_nothing_behind(parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "weights/model-00002-of-00002.safetensors").write_bytes(bytes(3 << 20))
    make_bundle(parts, tmp_path / "cell7.tar", keys[0])
    with small_disk(tmp_path / "disk", 1) as disk:
        for name in ("out", "out.tar"):
            with pytest.raises(StorageError, match="No space left"):
                make_bundle(parts, disk / name, keys[0])
        with pytest.raises(StorageError, match="which has less"):
            open_bundle(tmp_path / "cell7.tar", keys[1], into=disk / "robot")
        assert list(disk.iterdir()) == []


def test_verifying_loads_neither_torch_nor_ros(bundle: Path, keys: tuple[Path, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from lehrling.deploy.bundle import verify_bundle\n"
        "verify_bundle(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "assert not {'torch', 'rclpy', 'transformers', 'zarr'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, bundle, keys[1]], check=True, timeout=60)


def test_processes_that_open_a_tar_together_get_one_whole_folder(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    make_bundle(parts, tmp_path / "cell7.tar", keys[0])
    code = (
        "import sys; from pathlib import Path; from lehrling.deploy.bundle import open_bundle\n"
        "print(open_bundle(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cell7.tar"), str(keys[1])]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    folders = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(folders) == 1
    assert [entry.name for entry in (tmp_path / "cell7.tar.opened").iterdir()] == [Path(folders.pop().strip()).name]


def test_a_folder_that_holds_another_bundle_is_not_taken_for_this_one(
    parts: BundleParts, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    make_bundle(parts, tmp_path / "one.tar", keys[0])
    make_bundle(parts, tmp_path / "two.tar", keys[0])
    open_bundle(tmp_path / "one.tar", keys[1], into=tmp_path / "robot")
    with pytest.raises(InputError, match="holds another bundle"):
        open_bundle(tmp_path / "two.tar", keys[1], into=tmp_path / "robot")


def test_a_folder_copied_elsewhere_is_still_whole(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    folder = open_bundle(bundle, keys[1])
    shutil.copytree(folder, tmp_path / "usb")
    assert verify_bundle(tmp_path / "usb", keys[1]) == verify_bundle(bundle, keys[1])
