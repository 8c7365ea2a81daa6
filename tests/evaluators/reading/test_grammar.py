"""Replies built by a grammar around a known verdict, in thirteen languages: what is read is that verdict or nothing."""

from __future__ import annotations

import json

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluators.reading.roles import parse_roles
from evaluators.reading.scores import Scores, parse_scores
from evaluators.reading.thoughts import split

PROSE = [
    "The first answer names 3 sources and is right.",
    'It is fine. The wall is 12" wide, the shelf 5".',
    "第一个回答是正确的，因为它说明了2个首都。",
    "最初の回答は正しく、根拠を3つ挙げています。",
    "첫 번째 답변이 정확하고 근거가 2개 있습니다.",
    "Die erste Antwort ist richtig und nennt 2 Gründe.",
    "La première réponse est juste ; la seconde contient 3 erreurs.",
    "La primera respuesta es correcta; la segunda tiene 4 fallos.",
    "A primeira resposta está certa, a segunda tem 2 erros.",
    "La prima risposta è giusta, la seconda ha 3 errori.",
    "Первый ответ верен, во втором 2 ошибки.",
    "İlk yanıt doğru, ikincisinde 2 hata var.",
    "الإجابة الأولى صحيحة، وفي الثانية ٣ أخطاء.",
    "पहला उत्तर सही है, दूसरे में 2 गलतियाँ हैं।",
    "The answer has a `<think>` tag and {braces} and \\(x^2\\).",
    "So $\\frac{3}{4}$ of it holds; $\\boxed{42}$ is the result.",
    'def f(x):\n    return {"a": [x, 2]}["a"]',
]
REMARKS = [
    "Assistant 1's score is 2 points higher because it cites sources.",
    "So the score of Assistant 1 is 2 points higher than that of Assistant 2.",
    "Assistant 2's rating is 1 level below.",
    "I would have raised Assistant 2's score to 9.",
    "Breakdown - Assistant 1: 4, Assistant 2: 10",
    "Word count - Assistant 1: 5, Assistant 2: 9",
    "Errors:\nAssistant 1: 1\nAssistant 2: 2",
    "Note: 3 of the 5 claims lack a source.",
    "Key points: 3",
    "助手1比助手2高2分。",
    "アシスタント1のほうが2点高いです。",
    "어시스턴트 1이 2점 더 높습니다.",
    "Assistent 1 liegt um 2 Punkte vorn.",
    "L'assistant 1 a 2 points de plus.",
    "El asistente 1 tiene 2 puntos más.",
    "O assistente 1 tem 2 pontos a mais.",
    "L'assistente 1 ha 2 punti in più.",
    "Ассистент 1 на 2 балла выше.",
    "Asistan 1, 2 puan daha yüksek.",
    "المساعد 1 أعلى بنقطتين.",
    "सहायक 1 को 2 अंक अधिक मिले।",
    "Let me know if you need more detail.",
    "Confidence: 7",
    "| Criterion | Assistant 1 | Assistant 2 |\n|---|---|---|\n| Accuracy | 9 | 5 |",
]
ASKED = [
    "Score of Assistant {}: {}",
    "**Score of Assistant {}:** {}",
    "Score of the Assistant {}: **{}**",
    "- Score of Assistant {}: {}/10",
    "Score of Assistant {}: $\\boxed{{{}}}$",
    "SCORE OF ASSISTANT {} = {}",
    "Score of Assistant {}：{}",
]
TOLD = [
    "助手{}的得分：{}分",
    "アシスタント{}のスコア：10点満点中{}点",
    "어시스턴트 {}의 점수: 10점 만점에 {}점",
    "Bewertung von Assistent {}: {} von 10 Punkten",
    "Note de l'Assistant {} : {}/10",
    "Puntuación del Asistente {}: {} de 10",
    "Pontuação do Assistente {}: {}",
    "Punteggio dell'Assistente {}: {} su 10",
    "Оценка Ассистента {}: {} из 10",
    "Asistan {}'in Puanı: 10 üzerinden {}",
    "نقاط المساعد {}: {} من 10",
    "सहायक {} का स्कोर: 10 में से {}",
    "Assistant {}'s score: {}",
    "| Assistant {} | {} |",
]
THOUGHTS = [
    "<think>{}</think>\n",
    "<thinking>\n{}\n</thinking>\n",
    "<reasoning>{}</reasoning>\n",
    "[THINK]{}[/THINK]\n",
    "◁think▷{}◁/think▷\n",
    "{}\n</think>\n",
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
]
QUOTES = [
    'The second answer says "{}".',
    "It claims “{}”, which is wrong.",
    "Il dit « {} ».",
    "彼は「{}」と言う。",
    "> {}",
]

scores = st.tuples(st.integers(1, 10), st.integers(1, 10))
prose = st.lists(st.sampled_from(PROSE), max_size=4).map("\n".join)
remarks = st.lists(st.sampled_from(REMARKS), max_size=3).map("\n\n".join)


def lines(form: str, pair: tuple[int, int]) -> str:
    return "\n".join(form.format(number, score) for number, score in enumerate(pair, start=1))


@st.composite
def quotation(draw: st.DrawFn) -> str:
    form = draw(st.sampled_from(QUOTES))
    inner = lines(draw(st.sampled_from([*ASKED[:1], *TOLD])), draw(scores))
    return form.format(inner.replace("\n", "\n> " if form.startswith(">") else draw(st.sampled_from([" ", "\n"]))))


def read(text: str, **how: object) -> tuple[float, ...] | None:
    said = split(text)
    found = parse_scores(said.text, (1, 10), **how)  # type: ignore[arg-type]
    parse_roles(said.text)
    if not isinstance(found, Scores) or said.unclosed:
        return None
    for value, (start, end) in zip(found.values, found.spans, strict=True):
        assert str(int(value)) in said.text[start:end] or start == end or not said.text[start:end].isascii()
    return found.values


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_format_that_was_asked_for_is_read_whatever_stands_around_it(data):
    draw = data.draw
    verdict = draw(scores)
    before = draw(prose)
    for _ in range(draw(st.integers(0, 2))):
        form = draw(st.sampled_from([*ASKED, *TOLD]))
        before += "\n" + draw(
            st.one_of(quotation(), st.just("First draft:\n" + lines(form, draw(scores)) + "\n\nBut no."))
        )
    told = lines(draw(st.sampled_from(ASKED)), verdict)
    after = draw(remarks)
    if draw(st.booleans()):
        after += "\nThe answers also said: " + draw(quotation())
    reply = f"Evaluation evidence: {before}\n\n{told}\n\n{after}"
    if draw(st.booleans()):
        reply = draw(st.sampled_from(THOUGHTS)).format(lines(ASKED[0], draw(scores))) + reply
    assert read(reply) == verdict, reply


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_verdict_in_other_words_is_read_or_nothing(data):
    draw = data.draw
    verdict = draw(scores)
    before, after = draw(prose), draw(remarks)
    if draw(st.booleans()):
        before += "\n" + draw(quotation())
    if draw(st.booleans()):
        after += "\nNote what it said: " + draw(quotation())
    form = draw(st.sampled_from(TOLD))
    reply = f"{before}\n\n{lines(form, verdict)}\n\n{after}"
    if draw(st.booleans()):
        reply = draw(st.sampled_from(THOUGHTS)).format(lines(form, draw(scores))) + reply
    assert read(reply) in (verdict, None), reply
    # With nothing around it, it is read, so the above is no empty promise.
    assert read(lines(form, verdict)) == verdict


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_object_is_read_whatever_stands_around_it(data):
    draw = data.draw
    verdict = draw(scores)
    evidence = draw(prose) + draw(st.sampled_from(["", " \\(x\\)", "\nnew line", "\n" + lines(ASKED[0], (1, 10))]))
    value = {"evidence": evidence, "score_1": verdict[0], "score_2": verdict[1]}
    written = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2])))
    if draw(st.booleans()):
        written = written.replace("\\n", "\n").replace("\\\\(", "\\(").replace("\\\\)", "\\)")
    written = draw(
        st.sampled_from(["{}", "```json\n{}\n```", "<answer>{}</answer>", "[{}]", '{{"final": {}}}'])
    ).format(written)
    before = draw(
        st.sampled_from(["", "Here is my review:\n\n", "{ {} " * 300 + "\n", 'First: {"score_1": 1, "score_2": 9}\n'])
    )
    after = draw(
        st.sampled_from(["", "<|im_end|>", "</s>", "\n\nLet me know if you need more detail.", "\n**Note:** 3 points"])
    )
    thoughts = draw(st.sampled_from(["", '<think>{"score_1": 2, "score_2": 3}</think>']))
    assert read(thoughts + before + written + after, structured=True) == verdict


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_two_verdicts_that_differ_are_never_mixed(data):
    draw = data.draw
    one, other = draw(scores), draw(scores)
    assume(one[0] != other[0] and one[1] != other[1])
    forms = [draw(st.sampled_from([*ASKED, *TOLD])) for _ in range(2)]
    between = draw(st.sampled_from(["\n", "\n\nRevised:\n", "\nHowever:\n", "\n" + PROSE[0] + "\n"]))
    found = read(lines(forms[0], one) + between + lines(forms[1], other))
    assert found in (one, other, None)


@settings(max_examples=200, deadline=None)
@given(
    scores,
    st.sampled_from([*ASKED[:1], "Score of Assistant {}: {} points", "Score of Assistant {}: {}.0/10"]),
    st.data(),
)
def test_a_reply_that_is_cut_anywhere_gives_no_other_scores_of_the_first(verdict, form, data):
    text = lines(form, verdict)
    found = read(text[: data.draw(st.integers(0, len(text)))])
    assert found is None or found[0] == verdict[0]
