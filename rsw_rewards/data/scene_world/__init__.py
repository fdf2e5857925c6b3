"""The scene world: a procedural source of bi-temporal scenes with exact truth, in memory and on disk."""

from rsw_rewards.data.scene_world.land import CLASSES, EVENTS, MATERIALS, PLACES, Event
from rsw_rewards.data.scene_world.questions import KINDS, Question
from rsw_rewards.data.scene_world.scene import Scene, make_scene
from rsw_rewards.data.scene_world.splits import SPLITS, split_seed
from rsw_rewards.data.scene_world.write import TASKS, scene_world_samples, write_scene_world

__all__ = [
    "CLASSES",
    "EVENTS",
    "KINDS",
    "MATERIALS",
    "PLACES",
    "SPLITS",
    "TASKS",
    "Event",
    "Question",
    "Scene",
    "make_scene",
    "scene_world_samples",
    "split_seed",
    "write_scene_world",
]
