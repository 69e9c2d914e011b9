"""The precisions that the hardware computes in."""

import torch


def computes_in_bf16(*, use_cpu: bool) -> bool:
    """Whether bfloat16 is computed in hardware: CUDA from compute capability 8.0, x86 CPUs with AMX or AVX512-BF16.

    False where it is emulated, which is slower than fp32, and on hardware without a measured gain.
    """
    if not use_cpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def computes_in_fp16() -> bool:
    """Whether the GPU has tensor cores for float16: CUDA from compute capability 7.0 (V100, T4, RTX 20)."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (7, 0)
