"""What to cite for a model, in BibTeX."""

from __future__ import annotations

from typing import Any

from hf_genmodels import __version__

_PACKAGE = """\
@software{{hf_genmodels,
  title = {{hf\\_genmodels: compact generative models in Hugging Face format}},
  version = {{{version}}},
  license = {{Apache-2.0}}
}}"""
_GPT2 = """\
@techreport{radford2019language,
  title = {Language Models are Unsupervised Multitask Learners},
  author = {Radford, Alec and Wu, Jeffrey and Child, Rewon and Luan, David and Amodei, Dario and Sutskever, Ilya},
  institution = {OpenAI},
  year = {2019}
}"""
_PIXELS = """\
@inproceedings{chen2020generative,
  title = {Generative Pretraining from Pixels},
  author = {Chen, Mark and Radford, Alec and Child, Rewon and Wu, Jeffrey and Jun, Heewoo and Luan, David and Sutskever, Ilya},
  booktitle = {International Conference on Machine Learning},
  year = {2020}
}"""
_TRANSFORMER = """\
@inproceedings{vaswani2017attention,
  title = {Attention Is All You Need},
  author = {Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion and Gomez, Aidan N. and Kaiser, Lukasz and Polosukhin, Illia},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017},
  eprint = {1706.03762},
  archiveprefix = {arXiv}
}"""
_SEQUENCES = """\
@inproceedings{sutskever2014sequence,
  title = {Sequence to Sequence Learning with Neural Networks},
  author = {Sutskever, Ilya and Vinyals, Oriol and Le, Quoc V.},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2014},
  eprint = {1409.3215},
  archiveprefix = {arXiv}
}"""
_GAN = """\
@inproceedings{goodfellow2014generative,
  title = {Generative Adversarial Nets},
  author = {Goodfellow, Ian and Pouget-Abadie, Jean and Mirza, Mehdi and Xu, Bing and Warde-Farley, David and Ozair, Sherjil and Courville, Aaron and Bengio, Yoshua},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2014},
  eprint = {1406.2661},
  archiveprefix = {arXiv}
}"""
_ADVERSARIAL_TEXTS = {
    "gumbel": """\
@inproceedings{nie2019relgan,
  title = {RelGAN: Relational Generative Adversarial Networks for Text Generation},
  author = {Nie, Weili and Narodytska, Nina and Patel, Ankit},
  booktitle = {International Conference on Learning Representations},
  year = {2019}
}""",
    "reinforce": """\
@inproceedings{yu2017seqgan,
  title = {SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient},
  author = {Yu, Lantao and Zhang, Weinan and Wang, Jun and Yu, Yong},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2017},
  eprint = {1609.05473},
  archiveprefix = {arXiv}
}""",
}
_CONDITIONAL_GAN = """\
@article{mirza2014conditional,
  title = {Conditional Generative Adversarial Nets},
  author = {Mirza, Mehdi and Osindero, Simon},
  journal = {arXiv preprint arXiv:1411.1784},
  year = {2014}
}"""
_VIDEO_GAN = """\
@inproceedings{tulyakov2018mocogan,
  title = {MoCoGAN: Decomposing Motion and Content for Video Generation},
  author = {Tulyakov, Sergey and Liu, Ming-Yu and Yang, Xiaodong and Kautz, Jan},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2018},
  eprint = {1707.04993},
  archiveprefix = {arXiv}
}"""


def citations_of(config: Any, method: str = "") -> str:
    """Return the entries of the package and of the method's papers.

    Args:
        config: The model's configuration.
        method: What the card calls the training, such as `adversarial, gumbel`.
    """
    values = config.to_dict()
    papers = [_GPT2] + [_PIXELS] * bool(values.get("image_sizes"))
    if config.model_type == "gen_gan":
        papers = [_GAN] + [_CONDITIONAL_GAN] * (values["conditioning"] != "none")
        papers += [_VIDEO_GAN] * (values["num_frames"] > 1)
    elif config.model_type == "gen_rnn_seq2seq":
        papers = [_SEQUENCES]
    elif config.is_encoder_decoder:
        papers = [_TRANSFORMER]
    papers += [paper for name, paper in _ADVERSARIAL_TEXTS.items() if method.endswith(name)]
    return "\n\n".join([_PACKAGE.format(version=__version__), *papers])
