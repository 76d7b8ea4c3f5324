"""Equations as the docstrings of architectures have them, in Unicode, become MathML.

What is written `h_t = e^{Δ_t A} h_{t−1} + B̄ u_t,    y = SiLU(z)` is read as a mathematician reads it: a letter is a
symbol; two letters or more are a word; `_` and `^` hold for the next symbol, word or braces; `√` for the next symbol or
parentheses; two spaces or more part formulas.
"""

import html
import re
import unicodedata
from xml.etree.ElementTree import Element, SubElement, tostring

ACCENTS = {"\N{COMBINING MACRON}": "bar", "\N{COMBINING CIRCUMFLEX ACCENT}": "hat", "\N{COMBINING TILDE}": "tilde"}
WORDS = re.compile(r"( ?)(?<![A-Za-z])([A-Za-z]{2,}\.?(?: [A-Za-z]{2,}\.?)*)( ?)")
ROOT = re.compile(r"√(?:\(((?:[^()]|\([^()]*\))*)\)|([^\s(](?:_\{[^}]*\})?))")
TEXT = r"\\text\{[^}]*\}"


def to_mathml(line: str) -> str:
    """The formulas of a line as `<math>` elements, which may wrap between each other.

    A formula that is not written so, or has a backslash, is shown as it stands. Whatever the line, this is safe HTML.
    """
    formulas = re.split(r"\s{2,}", line.strip())
    return " ".join(tostring(_math(formula), encoding="unicode") for formula in formulas)


def _math(formula: str) -> Element:
    from latex2mathml.converter import convert_to_element

    try:
        if set(formula) & set("\\%$&#~"):  # no markup but ours: LaTeX has links
            raise ValueError
        math = convert_to_element(to_latex(formula), display="block")
        _mend(math)
        if re.search(r"[\\{}]", "".join(math.itertext())):
            raise ValueError
    except Exception:  # the converter has errors of many kinds
        math = Element("math", xmlns="http://www.w3.org/1998/Math/MathML")
        SubElement(math, "mtext").text = formula
    math.attrib.pop("display", None)
    math.set("displaystyle", "true")
    SubElement(math, "mspace", width="2em")
    return math


def to_latex(formula: str) -> str:
    """A formula in Unicode as LaTeX, except for operators, which stay single characters."""
    accented = "".join(ACCENTS)
    text = unicodedata.normalize("NFD", formula).replace("-", "−").replace("...", "…")
    text = WORDS.sub(_words, text)
    text = re.sub(rf"(.)([{accented}])", lambda found: rf"\{ACCENTS[found[2]]}{{{found[1]}}}", text)
    text = unicodedata.normalize("NFC", text)  # ∉ again
    text = re.sub("[¹²³⁰-ⁿᵀ]+", lambda found: f"^{{{_plain(found[0])}}}", text).replace("*", "^{∗}")
    text = re.sub("[₀-ₜ]+", lambda found: f"_{{{_plain(found[0])}}}", text)
    text = re.sub(rf"([_^])({TEXT}|\\\w+\{{.\}}|\d+|[^\s{{])", r"\1{\2}", text)
    text = ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    return text.replace("Σ", r"\sum ")


def _plain(script: str) -> str:
    """Superscripts or subscripts as ordinary characters."""
    return unicodedata.normalize("NFKC", script).replace("T", "⊤")


def _words(found: re.Match[str]) -> str:
    """Words as text; with a space where a symbol stands on that side."""
    before, after = found.string[: found.start()].rstrip()[-1:], found.string[found.end() :].lstrip()[:1]
    left = " " if found[1] and (before.isalnum() or before in ")]}|‖") else ""
    right = " " if found[3] and before not in {"_", "^"} and (after.isalnum() or after in "([|√") else ""
    return rf"\text{{{left}{found[2]}{right}}}"


def _mend(math: Element) -> None:
    """Write references as the characters they stand for; make operators of what the converter takes for letters."""
    for parent in math.iter():
        before = None
        for element in parent:
            element.text = text = html.unescape(element.text or "")
            if element.tag == "mi" and len(text) == 1 and not text.isalnum() and text != "′":
                element.tag = "mo"
            if element.tag == "mo" and text in {"/", "|", "‖"}:
                element.attrib.update(lspace="0", rspace="0", stretchy="false")
            if text == "−" and before is not None and before.tag == "mo" and before.text not in {")", "]", "|"}:
                element.set("form", "prefix")
            before = element
