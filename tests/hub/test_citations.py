"""Whom a card asks to cite."""

import pytest

from hf_genmodels import GenGPTConfig
from hf_genmodels.hub.citations import citations_of


@pytest.mark.parametrize(
    ("method", "paper"),
    [("adversarial, gumbel", "nie2019relgan"), ("adversarial, reinforce", "yu2017seqgan")],
)
def test_an_adversarial_language_model_names_the_paper_of_its_method(method: str, paper: str):
    config = GenGPTConfig()

    others = {"nie2019relgan", "yu2017seqgan"} - {paper}

    assert paper in citations_of(config, method)
    assert not any(other in citations_of(config, method) for other in others)
    assert paper not in citations_of(config)


def test_a_language_model_that_draws_names_image_gpt_too():
    config = GenGPTConfig(image_sizes=[8], image_token_ids=[1], palette_token_id=2, palette_size=4)

    cited = citations_of(config)

    assert "radford2019language" in cited
    assert "chen2020generative" in cited
