"""The CUDA kernel on a CPU: a thread per CUDA thread, barriers for __syncthreads and shuffles."""

from __future__ import annotations

import ctypes
import subprocess

import torch

from flarekit.models.selective_scan._nvrtc_source import ITEMS, SOURCE, THREADS

AROUND = r"""
#include <barrier>
#include <cmath>
#include <thread>
#include <vector>
#define __global__
#define __shared__ static
#define __restrict__
#define __launch_bounds__(n)
struct Index { int x, y; };
thread_local Index threadIdx, blockIdx;
static std::barrier<> block_barrier(THREADS);
static std::barrier<>* warp_barriers[THREADS / 32];
static REAL exchanged[THREADS];
static void __syncthreads() { block_barrier.arrive_and_wait(); }
static REAL __shfl_up_sync(unsigned, REAL value, int step) {
    auto& warp = *warp_barriers[threadIdx.x / 32];
    exchanged[threadIdx.x] = value;
    warp.arrive_and_wait();
    REAL result = threadIdx.x % 32 >= step ? exchanged[threadIdx.x - step] : value;
    warp.arrive_and_wait();
    return result;
}
"""
LAUNCHER = r"""
extern "C" void launch(const REAL* u, const REAL* delta, const REAL* A, const REAL* B,
                       const REAL* C, REAL* y, int batch, int channels, int tokens) {
    for (auto& warp : warp_barriers) warp = new std::barrier<>(32);
    std::vector<std::thread> threads;
    for (int t = 0; t < THREADS; ++t)
        threads.emplace_back([=] {
            for (int b = 0; b < batch; ++b)
                for (int channel = 0; channel < channels; ++channel) {
                    threadIdx = {t, 0};
                    blockIdx = {channel, b};
                    selective_scan(u, delta, A, B, C, y, channels, tokens);
                    __syncthreads();
                }
        });
    for (auto& thread : threads) thread.join();
}
"""


def emulated_scan(folder, states):
    """Compile the kernel with the system's C++ compiler; return a scan of float64 tensors."""
    source, library = folder / "scan.cpp", folder / "scan.so"
    source.write_text(AROUND + SOURCE + LAUNCHER)
    defines = {"REAL": "double", "EXP": "exp", "STATES": states, "THREADS": THREADS, "ITEMS": ITEMS}
    subprocess.run(
        ["g++", "-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-pthread", "-o", library, source]
        + [f"-D{name}={value}" for name, value in defines.items()],
        check=True,
    )
    launch = ctypes.CDLL(str(library)).launch

    def scan(u_BDL, delta_BDL, A_DN, B_BNL, C_BNL):
        y_BDL = torch.full_like(u_BDL, torch.nan)
        tensors = [t.contiguous() for t in (u_BDL, delta_BDL, A_DN, B_BNL, C_BNL)]
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*tensors, y_BDL)]
        launch(*pointers, *u_BDL.shape)
        return y_BDL

    return scan
