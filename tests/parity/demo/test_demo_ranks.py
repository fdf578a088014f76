"""The demo model split over two ranks: the text of one, Transformers' greedy text on the same prompts."""

from test_demo_parity import CASES, prompt_of, run


def test_two_ranks_give_the_same_text(tmp_path):
    flags = ("--dtype", "float32", "--max-tokens", "48", "--tensor-parallel-size", "2")
    answers = run(tmp_path, [prompt_of(case) for case in CASES], *flags)
    assert [answer["text"] for answer in answers] == [case["text"] for case in CASES]


def test_a_split_that_is_impossible_says_so(tmp_path):
    try:
        run(tmp_path, [{"prompt": "The train to"}], "--tensor-parallel-size", "3")
    except AssertionError as failure:
        assert "--tensor-parallel-size 3 does not divide the model's 4 attention heads" in str(failure)
    else:
        raise AssertionError("three ranks for four heads were accepted")
