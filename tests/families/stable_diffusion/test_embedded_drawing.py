"""The pictures that the embedded model is trained on: the same every time, and what their captions say."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.embedded import judge
from scripts.embedded.drawing import draw
from scripts.embedded.figures import COLOURS, FIGURES, SETTINGS, SHAPES, Picture, Thing
from scripts.embedded.grammar import SORTS, imagine, is_held_out, plural
from scripts.embedded.text import FILLER_WORDS, learn_merges

SEEDS = range(60)


def pixels(picture: Picture, size: int = 96) -> np.ndarray:
    return np.asarray(draw(picture, size), np.float32)


def test_a_seed_is_deterministic():
    for seed in SEEDS:
        first, again = imagine(seed), imagine(seed)
        assert first == again
        assert first.captions == again.captions
        assert np.array_equal(pixels(first, 32), pixels(again, 32))


def test_other_seeds_give_other_pictures():
    assert len({imagine(seed) for seed in SEEDS}) > 50


@pytest.mark.parametrize("sort", SORTS)
def test_captions_name_every_object_and_setting(sort: str):
    for seed in SEEDS:
        picture = imagine(seed, sort)
        assert len(picture.captions) == 4
        for caption in picture.captions:
            for thing in picture.things:
                assert (plural(thing.kind) if picture.count > 1 else thing.kind) in caption
                if sort != "scene":
                    assert thing.colour.replace("gray", "gr") in caption
        if picture.background == "plain" and sort != "single":
            assert all(picture.colour.replace("gray", "gr") in caption for caption in picture.captions)


@pytest.mark.parametrize("size", [64, 128])
def test_objects_have_the_shape_and_colours_of_their_description(size: int):
    for kind in SHAPES:
        thing = Thing(kind, "blue", 0.5, 0.5, 0.3, COLOURS["blue"])
        picture = pixels(Picture("plain", "yellow", COLOURS["yellow"], (thing,)), size)
        ground = judge.background_colour(picture)
        tint = judge.object_colour(picture, ground)
        assert judge.nearest_colour(ground) == "yellow"
        assert judge.nearest_colour(tint) == "blue"
        assert judge.recognise(judge.silhouette(picture, ground, tint))[0] == kind


@pytest.mark.parametrize("relation", ["left", "right", "above", "below"])
def test_object_positions_match_their_relation(relation: str):
    count = 0
    for seed in range(400):
        picture = imagine(seed, "pair")
        if picture.relation != relation:
            continue
        count += 1
        first, second = picture.things
        along = first.x - second.x if relation in {"left", "right"} else first.y - second.y
        assert (along < -0.3) == (relation in {"left", "above"})
    assert count > 20


def test_captions_state_the_relation_correctly_in_either_order():
    turned = {"left": "right", "right": "left", "above": "below", "below": "above"}
    for seed in range(200):
        picture = imagine(seed, "pair")
        if picture.relation not in turned or picture.things[0].kind == picture.things[1].kind:
            continue
        for caption in picture.captions:
            for relation, phrase in (
                ("left", " to the left of "),
                ("right", " to the right of "),
                ("above", " above "),
                ("below", " below "),
            ):
                if phrase in caption:
                    begins = picture.things[0].kind in caption.split(phrase)[0]
                    assert relation == (picture.relation if begins else turned[picture.relation])


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_are_distinct_and_fill_the_picture(setting: str):
    image = pixels(Picture(setting), 32)
    other_images = [pixels(Picture(other), 32) for other in SETTINGS if other != setting]
    assert min(np.abs(image - other).mean() for other in other_images) > 5
    assert image.std() > 10


@pytest.mark.parametrize("kind", FIGURES)
def test_figures_are_recognised_by_their_silhouette(kind: str):
    thing = Thing(kind, "red", 0.5, 0.5, 0.3, COLOURS["red"])
    picture = pixels(Picture("plain", "white", COLOURS["white"], (thing,)), 128)
    assert judge.recognise(judge.silhouette(picture, judge.background_colour(picture)), FIGURES)[0] == kind


def test_held_out_combinations_never_appear_in_the_training_pictures():
    for seed in (*range(1500), *range(1_000_000, 1_000_500)):
        picture = imagine(seed)
        assert not any(is_held_out(thing.colour, thing.kind, picture.colour) for thing in picture.things)


def test_a_larger_picture_is_the_same_picture():
    for seed in SEEDS:
        picture = imagine(seed)
        small, large = pixels(picture, 64), np.asarray(draw(picture, 128).reduce(2), np.float32)
        assert np.abs(small - large).mean() < 4


def test_every_word_becomes_one_token():
    merges = learn_merges(["circle", "cat", *FILLER_WORDS])
    whole = {"".join(pair) for pair in merges}
    assert {"circle</w>", "cat</w>"} <= whole
