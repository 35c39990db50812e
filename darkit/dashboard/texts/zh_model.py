"""What is said in Chinese of a model: what a step computes, and the receipt of one that spikes."""

from __future__ import annotations

CHINESE_MODEL = {
    "parameters": "参数",
    "parameters_of": "{all}，其中训练 {trained}",
    "samples_unit": "样本/秒",
    "tokens_unit": "token/秒",
    "flops": "FLOPs",
    "per_step": "每步 {count}",
    "not_counted": "未计算：{reason}",
    "mfu_of": "{peak} 的 {share}（{source}）",
    "receipt_of": "{name} 的脉冲收据",
    "spiking_layers": "神经元层",
    "spiking_synapses": "突触，每个样本",
    "spiking_energy": "能量，每个样本",
    "energy_of": "每个样本 {spent} nJ，是同样时间步的稠密孪生模型的 {dense} nJ 的 {share}。",
    "energy_model": "本模型",
    "energy_twin": "稠密孪生模型",
    "rates_over_time": "放电率随时间的变化",
    "rasters": "单个样本的脉冲",
    "more_rows": "还有 {count} 行",
}
