"""Instructions in other words."""

import numpy as np
import pytest

from models.paraphrase import paraphrases
from models.text import MiniLMText

SENTENCE = "pick up the alphabet soup and place it in the basket"


def test_the_first_is_the_instruction_and_all_repeat_with_the_seed():
    words = paraphrases(SENTENCE, 16)
    assert words[0] == SENTENCE and len(words) == 16 and len(set(words)) > 8
    assert paraphrases(SENTENCE, 16) == words != paraphrases(SENTENCE, 16, seed=1)
    assert paraphrases("wiggle", 3) == ("wiggle",) * 3


def test_what_is_asked_for_stays():
    for words in paraphrases(SENTENCE, 32):
        assert "alphabet soup" in words and "basket" in words
    for words in paraphrases("turn on the stove", 32):
        assert words.split()[:2] in (["turn", "on"], ["switch", "on"]) or words.startswith("start")


@pytest.mark.parametrize(
    "instruction, wording",
    [
        (
            "pick up the black bowl on the stove and place it on the plate",
            "bowl from the stove and",
        ),
        ("pick up the black bowl in the top drawer of the wooden cabinet", "from the top drawer"),
        ("open the middle drawer of the cabinet", "open the cabinet's middle drawer"),
        ("open the middle drawer of the cabinet", "open the middle drawer"),
        ("push the plate to the front of the stove", "move the plate to the stove's front"),
    ],
)
def test_people_say_it_shorter_too(instruction, wording):
    assert any(wording in words for words in paraphrases(instruction, 400))


def test_where_it_goes_and_what_it_is_stay():
    for words in paraphrases("pick up the white bowl and place it on the plate", 64):
        assert "white bowl and" in words and "from" not in words
    for words in paraphrases("pick up the bowl between the plate and the ramekin", 64):
        assert "between" in words and "plate and" in words


@pytest.mark.parametrize("place", ["on the stove", "in the top drawer of the wooden cabinet"])
def test_where_it_is_taken_from_is_no_place_to_put_it(place):
    for words in paraphrases(f"pick up the black bowl {place} and place it on the plate", 400):
        origin, _, goal = words.partition(" and ")
        assert not {"onto", "into"} & set(origin.split()), words
        assert goal.endswith("plate")


def test_paraphrases_lie_nearer_to_their_own_instruction_than_to_others():
    tasks = [SENTENCE, SENTENCE.replace("alphabet soup", "milk"), "put the bowl on the stove"]
    original = MiniLMText()(tasks)[0][:, 0]
    for i, task in enumerate(tasks):
        others = MiniLMText()(paraphrases(task, 12))[0][:, 0]
        assert np.array_equal((others @ original.T).argmax(1), np.full(12, i))
