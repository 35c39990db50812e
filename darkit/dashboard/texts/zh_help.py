"""The help in Chinese: queries and keys."""

from __future__ import annotations

CHINESE_HELP = {
    "help": "帮助",
    "help_queries": "查询",
    "help_try": "点击示例即可按它搜索。并列的条件须同时满足。",
    "query_words": "名称、标签、备注、状态、模型或项目中含有这些词",
    "query_config": "配置值：完整的键，或键的末尾部分",
    "query_metric": "指标的最新值",
    "query_best": "指标的最佳值",
    "query_state": "状态",
    "query_tag": "标签",
    "query_started": "昨天零点以后开始",
    "query_day": "在那一天开始；也可以写 today、2026-11-28、2d",
    "query_duration": "训练时间更长",
    "query_not": "否定",
    "query_or": "满足两个条件之一",
    "query_pattern": "正则表达式",
    "key_search": "搜索运行",
    "key_move": "下一个或上一个运行",
    "key_tick": "勾选运行",
    "key_open": "打开运行",
    "key_compare": "对比勾选的运行",
    "key_escape": "离开输入框，或清除选择",
    "key_runs": "回到运行列表",
    "key_palette": "查找运行或命令",
    "key_help": "键盘",
    "key_this": "显示本帮助",
}
