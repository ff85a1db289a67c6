"""Instructions in other words."""

import numpy as np

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


def test_paraphrases_lie_nearer_to_their_own_instruction_than_to_others():
    tasks = [SENTENCE, SENTENCE.replace("alphabet soup", "milk"), "put the bowl on the stove"]
    original = MiniLMText()(tasks)[0][:, 0]
    for i, task in enumerate(tasks):
        others = MiniLMText()(paraphrases(task, 12))[0][:, 0]
        assert np.array_equal((others @ original.T).argmax(1), np.full(12, i))
