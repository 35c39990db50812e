"""What is said in Chinese of a query that cannot be read; `darkit.runs.query` says it in English."""

from __future__ import annotations

import re

_SENTENCES = {
    r"No run has (.+?)\. (.+)\.": "没有运行有 {0}。{1}。",
    r"(.+) is no state\. (.+)\.": "{0} 不是状态。{1}。",
    r"A query has at most (.+) characters, not (.+)\.": "查询最多 {0} 个字符，这里有 {1} 个。",
    r"This \) closes nothing\.": "这个 ) 没有对应的 (。",
    r"This \( is not closed\.": "这个 ( 没有闭合。",
    r"Something must follow (or|not)\.": "{0} 后面缺少条件。",
    r"Something must stand before or\.": "or 前面缺少条件。",
    r"Too many parentheses in each other\.": "括号嵌套过深。",
    r"(.+) is text and has no (.+); write = or ~\.": "{0} 是文本，不能用 {1}；请写 = 或 ~。",
    r"Only one value can follow (.+)\.": "{0} 后面只能有一个值。",
    r"(.+) is no duration; write (.+), (.+) or (.+)\.": "{0} 不是时长；请写 {1}、{2} 或 {3}。",
    r"(.+) is no time; write (.+) or, for the last two days, 2d\.": "{0} 不是时间；请写 {1}，或用 2d 表示最近两天。",
    r"A number must follow (.+), not (.+)\.": "{0} 后面必须是数字，而不是 {1}。",
    r"A pattern has at most (.+) characters\.": "正则表达式最多 {0} 个字符。",
    r"The pattern cannot be read: (.+)\.": "正则表达式无效：{0}。",
    r"This pattern could take very long: .+ use at most (\d+) .+": (
        "这个正则表达式可能耗时过长：不要重复含有重复或分支的组，重复最多 {0} 次，少用可选部分和分支，不用引用和标志。"
    ),
    r"The search for this pattern was ended after (.+) seconds; .+": "搜索超过 {0} 秒，已中止；请减少重复。",
    r"A name must stand before (.+)\.": "{0} 前面缺少名称。",
    r"A value is missing after (.+)": "{0} 后面缺少值。",
    r"The quotation mark is not closed\.": "引号没有闭合。",
    r"The pattern is not closed: a second / is missing\.": "正则表达式没有闭合：缺少第二个 /。",
}
_NEAREST = {
    r"Did you mean (.+?)\? ": r"是不是 \1？",
    "Available: none": "可用：无",
    "Available: ": "可用：",
    r" and (\d+) more": r" 等，另有 \1 个",
}
_KNOWN = [(re.compile(english, re.DOTALL), chinese) for english, chinese in _SENTENCES.items()]


def chinese_problem(sentence: str) -> str:
    """Return what is wrong with a query in Chinese; a sentence that is not known as it is."""
    for english, chinese in _KNOWN:
        found = english.fullmatch(sentence)
        if found:
            said = chinese.format(*found.groups())
            for part, words in _NEAREST.items() if "Available: " in sentence else ():
                said = re.sub(part, words, said)
            return said
    return sentence
