"""`lehrling export policy` and `lehrling bundle`: a trained policy on its way to a robot."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lehrling.cli.interchange_verbs import export
from lehrling.cli.output import Json, print_json, progress, say

if TYPE_CHECKING:
    from collections.abc import Mapping

bundle = typer.Typer(help="Put policies and what they need into one signed bundle.", no_args_is_help=True)
BASE = typer.Option("--base", help="Where the base lies, if not where it lay in training.")
DESCRIPTION_BYTES_MAX = 64 << 20


class _Form(StrEnum):
    MERGED = "merged"
    ADAPTER = "adapter"
    ONNX = "onnx"


@export.command("policy")
def export_policy(
    policy: Annotated[Path, typer.Argument(help="Policy folder.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; must not be there.")],
    form: Annotated[
        _Form, typer.Option("--as", help="merged: plain weights. adapter: what was trained. onnx: one graph.")
    ],
    base: Annotated[str | None, BASE] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Largest difference from the policy, in normalised units.")
    ] = 1e-4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random inputs to compare on.")] = 0,
    json_: Json = False,
) -> None:
    """Export a policy: merged into its base, the adapter alone, or as ONNX; compared with the policy, or refused."""
    facts: dict[str, Any]
    with progress("exporting") as update:
        update(0, 1)
        if form is _Form.ADAPTER:
            from lehrling.training.export import export_adapter

            facts = export_adapter(policy, out)
        elif form is _Form.MERGED:
            from lehrling.training.export_merged import export_merged

            facts = export_merged(policy, out, base=base, tolerance=tolerance, seed=seed)
        else:
            from lehrling.training.export_onnx import export_onnx

            facts = export_onnx(policy, out, base=base, tolerance=tolerance, seed=seed)
        update(1, 1)
    if json_:
        print_json({"out": str(out), **facts})
        return
    if agreement := facts.get("agreement"):
        say(
            f"max difference from the policy {agreement['max_difference']:.3g} over {agreement['samples']} random inputs, "
            f"in normalised units ({agreement['tolerance']:g} allowed)"
        )
    say(f"{len(facts['files'])} files in {out}; export.json says what they are")


@bundle.callback()
def _bundle() -> None:
    """Put policies and what they need into one signed bundle."""


@bundle.command("key")
def bundle_key(
    path: Annotated[Path, typer.Argument(help="Name of the pair: PATH.key stays here, PATH.pub goes to the robots.")],
    json_: Json = False,
) -> None:
    """Make a pair of Ed25519 keys to sign bundles with."""
    from lehrling.deploy.bundle_keys import key_id, make_keys, read_public

    private, public = make_keys(path)
    name = key_id(read_public(public))
    if json_:
        print_json({"private": str(private), "public": str(public), "key": name})
        return
    say(f"key {name}: {private} signs and has no password, keep it where bundles are made; {public} verifies")


@bundle.command("make")
def bundle_make(
    out: Annotated[Path, typer.Argument(help="Folder or .tar to make; must not be there.")],
    policies: Annotated[list[str], typer.Argument(help="Policies: FOLDER, or NAME=FOLDER.")],
    key: Annotated[Path, typer.Option("--key", help="Private key to sign with, see `bundle key`.")],
    with_base: Annotated[bool, typer.Option("--with-base", help="Take the base's weights along.")] = False,
    base: Annotated[str | None, BASE] = None,
    embodiment: Annotated[str | None, typer.Option("--embodiment", help="Shipped embodiment or YAML file.")] = None,
    guard: Annotated[Path | None, typer.Option("--guard", help="Guard configuration (YAML).")] = None,
    json_: Json = False,
) -> None:
    """Make a signed bundle of policies, and of base, embodiment and guard configuration where they are given."""
    from lehrling.deploy.bundle_make import BundleParts, make_bundle

    found = _named(policies)
    weights = _base(found, base) if with_base or base is not None else None
    with progress("bundling") as update:
        update(0, 1)
        manifest = make_bundle(BundleParts(found, weights, embodiment, guard), out, key)
        update(1, 1)
    if json_:
        print_json({"out": str(out), **manifest.model_dump(mode="json")})
    else:
        say(
            f"{out}: {len(manifest.files)} files, {manifest.size / 1e6:.1f} MB, policies {', '.join(manifest.policies)}"
        )


@bundle.command("verify")
def bundle_verify(
    path: Annotated[Path, typer.Argument(help="Bundle: folder or .tar.")],
    key: Annotated[Path, typer.Option("--key", help="Public key (.pub) of who made it.")],
    json_: Json = False,
) -> None:
    """Verify a bundle's signature and every file; exit code 1 where it is not what was signed."""
    from lehrling.deploy.bundle import verify_bundle

    report = verify_bundle(path, key)
    if json_:
        print_json(report.to_json())
        return
    along = [word for word, there in (("base", report.base), ("embodiment", report.embodiment)) if there]
    along += ["guard configuration"] if report.guard else []
    say(f"{path} is as key {report.key} signed it: {report.name}, made {report.made_at} by {report.made_by}")
    say(f"policies {', '.join(report.policies)}; with {', '.join(along) or 'nothing else'}; {report.files} files")


def _named(policies: list[str]) -> dict[str, Path]:
    """Return policies by name; training calls its folder `policy`, then the run's name says more."""
    from lehrling.datasets.errors import InputError

    found: dict[str, Path] = {}
    for word in policies:
        name, said, rest = word.partition("=")
        folder = Path(rest if said else word)
        own = folder.resolve()
        name = name if said else (own.parent.name if own.name == "policy" else own.name)
        if not name or name in found:
            raise InputError(
                f"Expected a name of its own for every policy, got {name!r} twice or none; write NAME=FOLDER."
            )
        found[name] = folder
    return found


def _base(policies: Mapping[str, Path], given: str | None) -> Path:
    """Return the folder of the one base that the policies stand on.

    Merged policies bring their own and do not count.
    """
    from lehrling.datasets.documents import read_json
    from lehrling.datasets.errors import InputError
    from lehrling.training.models import check

    folder: Path | None = None
    for name, policy in policies.items():
        path = policy / "policy.json"
        if not path.is_file():
            raise InputError(f"Expected a policy (a directory with policy.json) at {policy}, but there is none.")
        if (policy / "model" / "config.json").is_file():
            continue
        facts = read_json(path, "policy description", bytes_max=DESCRIPTION_BYTES_MAX)
        try:
            source, revision, wanted = (facts["base"][key] for key in ("source", "revision", "weights_sha256"))
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} does not say which base it stands on; restore it.") from error
        found = check(given or str(source), revision, fetch=False)
        if found.weights_hash != wanted:
            raise InputError(
                f"Policy {name!r} stands on weights {str(wanted)[:12]}, but {found.source} has {found.weights_hash[:12]}; "
                "a bundle has one base."
            )
        if folder is not None and not folder.samefile(found.directory):
            raise InputError(f"Expected policies of one base, got {folder} and {found.directory}; make two bundles.")
        folder = found.directory
    if folder is None:
        raise InputError("Expected a policy that needs a base, got merged ones only; leave --with-base out.")
    return folder


def register(app: typer.Typer) -> None:
    """Add these verbs; `export policy` joins those that `interchange_verbs` adds."""
    app.add_typer(bundle, name="bundle")
