"""What is said in Chinese of groups of runs that are compared; English is in `darkit.runs.comparison_words`."""

from __future__ import annotations

CHINESE_COMPARISON = {
    "contrast_runs": "运行数",
    "contrast_mean": "均值",
    "contrast_std": "标准差",
    "contrast_ci_t": "{percent} 置信区间（t）",
    "contrast_ci_bootstrap": "{percent} 置信区间（bootstrap）",
    "contrast_less": "减去 {first}",
    "contrast_difference": "差",
    "contrast_test": "检验",
    "contrast_p": "p",
    "contrast_p_holm": "p（Holm）",
    "contrast_effect": "效应量",
    "contrast_paired": "配对 t",
    "contrast_welch": "Welch t",
    "contrast_paired_test": "配对 t 检验",
    "contrast_welch_test": "Welch 检验",
    "contrast_both": "{first} 和 {second}",
    "contrast_single": "{groups}：只有一个运行，无法得知噪声大小。请用 seeds=5 多训练几个。",
    "contrast_equal": "{second} 与 {first} 无法检验：取值或按种子的差全都相同。",
    "contrast_seeds": " {count} 个种子",
    "contrast_common_seeds": "双方共有的 {count} 个种子",
    "contrast_two_seeds": " {first} 个和 {second} 个种子",
    "contrast_two_runs": " {first} 个和 {second} 个运行",
    "contrast_interval": "{percent} 区间 {low} 到 {high}",
    "contrast_interval_holm": "对所有检验的 {percent} 区间 {low} 到 {high}",
    "contrast_noise": (
        "{second} 与 {first} 的差 {difference} 在{count}下属于噪声：{test}，{p}，{interval}。"
        "小于 {least} 的差在这里无法与噪声区分。"
    ),
    "contrast_found": "{second} 比 {first} {word} {size}：在{count}下大于噪声（{test}，{p}，{interval}）。",
    "contrast_better": "好",
    "contrast_worse": "差",
    "contrast_lower": "低",
    "contrast_higher": "高",
    "contrast_left_out": "{group}：未计入 {name}（{why}）。",
    "contrast_of_state": "状态为{state}",
    "contrast_diverged": "它已发散，没有最佳值",
    "contrast_repeats": "它重复了 {name}：设置、种子和取值都相同",
    "contrast_no_value": "没有有限的 {metric}",
    "contrast_no_value_at": "第 {step} 步没有有限的 {metric}",
}
