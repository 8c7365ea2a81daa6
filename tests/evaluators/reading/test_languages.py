"""Scores as people write them, in thirteen languages: the number that is meant, or none."""

from __future__ import annotations

import pytest

from evaluators.reading.scores import Scores, Unparsed, parse_scores

LABELS = {
    "english": ["Score of Assistant {}: ", "Assistant {}'s rating: ", "Final score for Assistant {}: "],
    "chinese": ["助手{}的得分：", "助手 {} 的评分是 ", "最终得分：助手{}："],
    "japanese": ["アシスタント{}のスコア：", "アシスタント{}の得点は", "アシスタント{}の最終スコア: "],
    "korean": ["어시스턴트 {}의 점수: ", "어시스턴트 {}의 평점은 ", "최종 점수 - 어시스턴트 {}: "],
    "german": ["Bewertung von Assistent {}: ", "Punktzahl für den Assistenten {}: ", "Gesamtnote für Assistent {}: "],
    "french": ["Note de l'Assistant {} : ", "Score de l’assistant {} : ", "Note finale de l'assistant {} : "],
    "spanish": ["Puntuación del Asistente {}: ", "Calificación del asistente {}: ", "Nota final del asistente {}: "],
    "portuguese": ["Pontuação do Assistente {}: ", "Nota do assistente {}: ", "Avaliação final do assistente {}: "],
    "italian": ["Punteggio dell'Assistente {}: ", "Voto all’assistente {}: ", "Valutazione dell'assistente {}: "],
    "russian": ["Оценка Ассистента {}: ", "Балл ассистента {} — ", "Итоговая оценка ассистента {}: "],
    "turkish": ["Asistan {}'in Puanı: ", "Asistan {} Puanı: ", "Asistan {} için son puan: "],
    "arabic": ["نقاط المساعد {}: ", "تقييم المساعد {}: ", "النتيجة النهائية للمساعد {}: "],
    "hindi": ["सहायक {} का स्कोर: ", "सहायक {} के अंक: ", "सहायक {} का अंतिम स्कोर: "],
}
OF_TEN = {
    "english": ["{} out of 10", "{}/10", "of 10 points, {}", "{} points out of 10", "{} (out of 10)"],
    "chinese": ["{}分", "10分中的{}分", "满分10分，得{}分", "{}分（满分10分）", "10分满分，{}分"],
    "japanese": ["{}点", "10点満点中{}点", "10点中{}点", "{}点（10点満点中）", "{}点／10点"],
    "korean": ["{}점", "10점 만점에 {}점", "10점 만점 중 {}점", "{}점 (10점 만점)", "{}점입니다"],
    "german": ["{} von 10 Punkten", "{} Punkte", "von 10 Punkten {}", "{} Punkte von 10", "{}/10"],
    "french": ["{} sur 10", "{} points sur 10", "sur 10 : {}", "{} / 10"],
    "spanish": ["{} de 10", "{} sobre 10", "{} de un total de 10", "de 10 puntos, {}"],
    "portuguese": ["{} de 10", "{} em 10", "{} pontos", "de 10 pontos, {}"],
    "italian": ["{} su 10", "{} punti su 10", "su 10: {}", "{} punti"],
    "russian": ["{} из 10", "{} баллов", "{} баллов из 10", "из 10 баллов {}"],
    "turkish": ["10 üzerinden {}", "{} puan", "10 puan üzerinden {} puan", "10'da {}"],
    "arabic": ["{} من 10", "{} نقاط", "{} نقاط من 10", "من 10: {}"],
    "hindi": ["10 में से {}", "{} अंक", "10 अंकों में से {} अंक", "{}/10"],
}
NOT_ONE = {
    "english": [
        "{} to 9",
        "{} or 9",
        "{}, maybe 9",
        "{}...9",
        "about {}",
        "{} and a half",
        "between {} and 9",
        "{} or nine",
    ],
    "chinese": ["{}至9分", "{}到9分", "{}或9", "{}分左右", "{}分半", "约{}分", "{}%"],
    "japanese": ["{}から9", "{}か9", "{}〜9点", "{}点くらい", "約{}点", "{}点以上"],
    "korean": ["{}점 또는 9점", "{}~9점", "{}점에서 9점", "약 {}점", "{}점 정도"],
    "german": ["{} bis 9", "{} oder 9", "etwa {}", "{}, vielleicht 9", "{} Prozent", "zwischen {} und 9"],
    "french": ["{} à 9", "{} ou 9", "environ {}", "{}, voire 9", "{} et demi", "entre {} et 9"],
    "spanish": ["{} a 9", "{} o 9", "entre {} y 9", "unos {}", "{} y medio", "{}, quizás 9"],
    "portuguese": ["{} a 9", "{} ou 9", "cerca de {}", "{} e meio", "entre {} e 9"],
    "italian": ["da {} a 9", "{} o 9", "circa {}", "{} e mezzo", "tra {} e 9"],
    "russian": ["{} или 9", "от {} до 9", "около {}", "{} с половиной", "{}, может быть, 9"],
    "turkish": ["{} ile 9", "{} veya 9", "yaklaşık {}", "{} buçuk", "{} ila 9"],
    "arabic": ["{} أو 9", "{} إلى 9", "حوالي {}", "{} ونصف", "بين {} و 9"],
    "hindi": ["{} से 9", "{} या 9", "लगभग {}", "साढ़े {}", "{} प्रतिशत"],
}
OTHER_SCALES = {
    "english": ["{} out of 20", "{} points out of 100", "4 stars out of 5"],
    "chinese": ["5分中的4分", "满分100分，得{}分"],
    "japanese": ["5点満点中4点", "100点満点中{}点"],
    "korean": ["5점 만점에 4점", "100점 만점에 {}점"],
    "german": ["{} von 20", "4 von 5 Punkten"],
    "french": ["{} sur 20", "4 sur 5"],
    "spanish": ["{} de 20", "4 sobre 5"],
    "portuguese": ["{} de 20", "4 em 5"],
    "italian": ["{} su 20", "4 su 5"],
    "russian": ["{} из 20", "4 балла из 5"],
    "turkish": ["20 üzerinden {}", "5 üzerinden 4"],
    "arabic": ["{} من 20", "4 من 5"],
    "hindi": ["20 में से {}", "5 में से 4"],
}
CASES = [(name, label) for name, labels in LABELS.items() for label in labels]


def read(text: str) -> Scores | Unparsed:
    return parse_scores(text, (1, 10))


@pytest.mark.parametrize(("language", "label"), CASES)
def test_a_score_of_ten_is_read(language, label):
    for value in ["{}", *OF_TEN[language]]:
        text = f"{label.format(1)}{value.format(8)}\n{label.format(2)}{value.format(6)}"
        found = read(text)
        if label.rstrip()[-1] in ":：—-" or value[:1] == "{":
            assert isinstance(found, Scores) and found.values == (8, 6), (text, found)
        assert isinstance(found, Unparsed) or found.values == (8, 6), (text, found)
        joint = ", ".join(text.split("\n"))
        both = read(joint)
        assert isinstance(both, Unparsed) or both.values == (8, 6), (joint, both)


@pytest.mark.parametrize(("language", "label"), CASES)
def test_what_is_no_single_score_of_ten_is_not_read(language, label):
    for value in [*NOT_ONE[language], *OTHER_SCALES[language]]:
        text = f"{label.format(1)}{value.format(8)}\n{label.format(2)}6"
        assert isinstance(read(text), Unparsed), (text, read(text))
        text = f"{label.format(1)}6\n{label.format(2)}{value.format(8)}"
        assert isinstance(read(text), Unparsed), (text, read(text))


@pytest.mark.parametrize("digits", ["٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "০১২৩৪৫৬৭৮৯", "๐๑๒๓๔๕๖๗๘๙"])
def test_digits_of_other_scripts_are_digits(digits):
    other = str.maketrans("0123456789", digits)
    for label in ("Score of Assistant {}: ", "نقاط المساعد {}: ", "सहायक {} का स्कोर: "):
        for value in ("{}", "{}/10", "{}.5"):
            text = f"{label.format(1)}{value.format(8)}\n{label.format(2)}{value.format(6)}".translate(other)
            found = read(text)
            more = 0.5 if ".5" in value else 0
            assert isinstance(found, Scores) and found.values == (8 + more, 6 + more), (text, found)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("8½", 8.5),
        ("8 ½", 8.5),
        ("8¼", 8.25),
        ("8·5", 8.5),
        ("8,5", 8.5),
        ("٨٫٥", 8.5),
        ("８．５", 8.5),
        ("⑧", 8),
        (r"$\boxed{8}$", 8),
        (r"\textbf{8}", 8),
        (r"\frac{8}{10}", 8),
        (r"\(8\)", 8),
        ("<8>", 8),
        ("[[8]]", 8),
        ("eight (8)", 8),
        ("acht (8)", 8),
        ("huit (8)", 8),
        ("ocho (8)", 8),
        ("восемь (8)", 8),
        ("八（8）", 8),
        ("8 (eight)", 8),
        ("8 (on a scale of 1 to 10)", 8),
        ("8 on a 1-10 scale", 8),
        ("<b>8</b>", 8),
        ("8\u200f", 8),
        (".8", None),
        ("8,500", None),
        ("8+", None),
        ("8-", 8),
        ("-8", None),
        ("8e1", None),
        ("8th", None),
        ("8x", None),
        ("8¹", None),
        ("10²", None),
        ("~~7~~ 8", None),
        ("<s>7</s> 8", None),
        (r"\sqrt{64}", None),
        ("eight (9)", None),
        ("8 (nine)", None),
        ("8 (up from 7)", None),
        ("≥8", None),
        ("<8", None),
        ("~8", None),
        ("8…", None),
        ("🔟", None),
        ("8:6", None),
        ("8 1/2", None),
        ("8;9", None),
        ("8 9", None),
        ("8 (on a scale of 1 to 100)", None),
        ("0.8", None),
        ("VIII", None),
        ("eight", None),
        ("B+", None),
        ("8%", None),
        ("80 %", None),
        ("0", None),
        ("11", None),
    ],
)
def test_a_number_is_read_right_or_not_at_all(written, meant):
    found = read(f"Score of Assistant 1: {written}\nScore of Assistant 2: 6")
    assert (found.values[0] if isinstance(found, Scores) else None) == meant, found
