from __future__ import annotations

import pytest
from tests.unit.cluster.api_server import status
from tests.unit.cluster.conftest import World
from tests.unit.runtime.objects import template

from finetune_operator import builtin
from finetune_operator.cluster.client import UnavailableError
from finetune_operator.cluster.install import install_templates
from finetune_operator.runtime.kinds import CLUSTER_TEMPLATES

PATH = CLUSTER_TEMPLATES.path(None)
TEMPLATES = builtin.templates()
NAMES = [one.metadata.name for one in TEMPLATES]


async def install(world: World) -> list[str]:
    """Installs, and returns what was posted."""
    await install_templates(world.client, world.store, world.inbox, TEMPLATES)
    return [asked.body["metadata"]["name"] for asked in world.server.asked if asked.method == "POST"]


def known(world: World) -> list[str]:
    return [name for name in NAMES if world.store.get(CLUSTER_TEMPLATES, "", name) is not None]


async def test_templates_that_are_missing_are_installed_and_known_at_once(world: World) -> None:
    world.server.answer("POST", PATH, *(template("ClusterFineTuneTemplate", name) for name in NAMES))
    assert await install(world) == NAMES
    assert known(world) == NAMES
    posted = world.server.asked[0].body
    assert posted["metadata"] == {"name": NAMES[0], "labels": TEMPLATES[0].metadata.labels}
    assert posted["kind"] == "ClusterFineTuneTemplate"
    assert posted["spec"] == TEMPLATES[0].to_manifest()["spec"]


async def test_a_template_that_is_there_is_somebodys(world: World) -> None:
    world.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate", NAMES[0]))
    world.server.answer("POST", PATH, status(409, "AlreadyExists"))
    assert await install(world) == NAMES[1:]
    assert known(world) == NAMES[:1]


async def test_a_template_that_is_refused_keeps_no_other_from_being_installed(world: World) -> None:
    world.server.answer("POST", PATH, status(403), *(template("ClusterFineTuneTemplate", name) for name in NAMES[1:]))
    assert await install(world) == NAMES
    assert known(world) == NAMES[1:]


async def test_an_api_server_out_of_reach_is_asked_again_later(world: World) -> None:
    world.server.answer("POST", PATH, status(503))
    with pytest.raises(UnavailableError):
        await install(world)
