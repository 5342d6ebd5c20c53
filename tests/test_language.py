"""The guard against texts in languages the stack does not read."""

import csv
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.errors import BundleError
from stacknorm.language import LanguageGuard, Verdict

DATA = Path(__file__).parents[2] / "shared" / "data"
FOREIGN = json.loads((Path(__file__).parent / "data" / "headlines_in_other_languages.json").read_text())
ENGLISH_GUARD = LanguageGuard(["en"])
TRULY_FOREIGN = {
    "Wipro贏得Marelli的多年策略性IT協議",
    "Resumen: ProAmpac y nkd LIFE son reconocidos en los premios mundiales de la innovación en bebidas",
    "Nombrado nuevo vicepresidente de la división de cadena de suministro del grupo Viking Malt",
    "SolarEdge dostarczy Enfindus falowniki dla Europejskiego projektu solarnego o mocy 1GW.",
    "Enfindus sceglie gli inverter SolarEdge per 1 GW di progetti fotovoltaici in Europa",
    "Adocia annonce son calendrier financier pour l\N{RIGHT SINGLE QUOTATION MARK}année 2020",
}


@pytest.mark.parametrize("language", FOREIGN)
def test_headlines_in_other_languages_are_told(language: str) -> None:
    verdicts = ENGLISH_GUARD.judge(FOREIGN[language])
    assert len(verdicts) >= 10
    assert all(verdict.foreign for verdict in verdicts)
    assert sum(verdict.language == language for verdict in verdicts) >= 0.8 * len(verdicts)


@pytest.mark.skipif(not DATA.is_dir(), reason="the English data sets are not beside the project")
def test_no_english_row_of_the_data_sets_is_withheld() -> None:
    texts = [json.loads(line)["text"] for line in (DATA / "sentfin.jsonl").read_text().splitlines()]
    for name in ("tfns_valid.csv", "tfnt_valid.csv"):
        with (DATA / name).open(newline="") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
    verdicts = ENGLISH_GUARD.judge(texts)
    withheld = {text for text, verdict in zip(texts, verdicts, strict=True) if verdict.foreign}
    assert len(texts) == 14_070
    assert withheld <= TRULY_FOREIGN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$TSLA $AAPL $SPY https://t.co/x",
        "NVDA 512.30 +4.1%",
        "@bloom @bopinion #RecuseNow #Stock #MarketScreener",
        "Bundesbank",
        "🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀",
        "1,234,567 890 12.5% 2026-11-24 10:15",
    ],
)
def test_tickers_numbers_and_single_names_give_no_verdict(text: str) -> None:
    assert ENGLISH_GUARD.judge([text]) == [Verdict(None, 0.0, foreign=False)]


@pytest.mark.parametrize(
    "text",
    [
        "Société Générale posts surprise profit",
        "Crédit Agricole shares slide after results",
        "Münchener Rückversicherungs-Gesellschaft raises dividend",
        "Türkiye Petrol Rafinerileri posts record profit",
        "Banca Monte dei Paschi di Siena S.p.A. reports FY results",
        "Compagnie Générale des Établissements Michelin reports FY results",
        "PKO Bank Polski Spółka Akcyjna profit up",
        "Hindustan Petroleum, Bharat Petroleum gain",
        "OMV Aktiengesellschaft reports Q4 results",
        "$PBR Petrobras cuts dividend",
        "SAP AND SIEMENS: GERMAN STOCKS CLOSE LOWER",
    ],
)
def test_english_about_foreign_names_is_kept(text: str) -> None:
    assert not ENGLISH_GUARD.judge([text])[0].foreign


def test_a_foreign_text_full_of_english_names_is_told() -> None:
    texts = ["Wipro贏得Marelli的多年策略性IT協議", "EL GRUPO IBERCHEM CIERRA EL AÑO CON LA COMPRA DE DOS COMPAÑÍAS"]
    assert [verdict.language for verdict in ENGLISH_GUARD.judge(texts) if verdict.foreign] == ["zh", "es"]


def test_a_bundle_of_two_languages_keeps_both() -> None:
    guard = LanguageGuard(["en", "de"])
    assert not any(verdict.foreign for verdict in guard.judge(FOREIGN["de"]))
    assert all(verdict.foreign for verdict in guard.judge(FOREIGN["fr"]))


def test_a_language_the_model_does_not_know_is_a_fault_of_the_bundle() -> None:
    with pytest.raises(BundleError, match="tlh"):
        LanguageGuard(["en", "tlh"])


def test_threads_share_a_guard_and_get_what_one_gets() -> None:
    texts = [text for texts in FOREIGN.values() for text in texts]
    alone = ENGLISH_GUARD.judge(texts)
    with ThreadPoolExecutor(4) as threads:
        assert all(verdicts == alone for verdicts in threads.map(ENGLISH_GUARD.judge, [texts] * 8))


@given(st.lists(st.text(), max_size=4))
def test_any_texts_give_one_verdict_each_with_a_probability(texts: list[str]) -> None:
    verdicts = ENGLISH_GUARD.judge(texts)
    assert len(verdicts) == len(texts)
    assert all(0 <= verdict.probability <= 1 for verdict in verdicts)


def test_long_texts_cost_no_more_than_their_beginning() -> None:
    text = "Shares of the company fell sharply. " * 3_000
    started = time.process_time()
    ENGLISH_GUARD.judge([text] * 20)
    assert time.process_time() - started < 0.5
