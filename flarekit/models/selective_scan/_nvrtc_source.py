"""The selective scan in CUDA C++, without a header: NVRTC compiles it where it is to run.

One block per channel and batch walks along the tokens, THREADS x ITEMS of them at a time. A token
is the affine map h -> a h + b with a = exp(delta A) and b = delta u B; maps compose associatively,
so that a block scans them in parallel (Gu and Dao 2023, section 3.3.2): each thread folds its own
tokens, a warp scans its threads by shuffles, the block its warps through shared memory. Decays are
only ever multiplied, so nothing can overflow.

REAL, EXP, STATES, THREADS and ITEMS are defined by whoever compiles.
"""

THREADS = 128
ITEMS = 4  # tokens per thread at a time

SOURCE = r"""
#define WARPS (THREADS / 32)
#define ALL_LANES 0xffffffffu

extern "C" __global__ void __launch_bounds__(THREADS)
selective_scan(const REAL* __restrict__ u, const REAL* __restrict__ delta,
               const REAL* __restrict__ A, const REAL* __restrict__ B,
               const REAL* __restrict__ C, REAL* __restrict__ y, int channels, int tokens)
{
    __shared__ REAL warp_decay[STATES][WARPS];
    __shared__ REAL warp_state[STATES][WARPS];
    __shared__ REAL carried[2][STATES];  // the state behind the tokens done so far
    const int channel = blockIdx.x, batch = blockIdx.y;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long row = ((long long)batch * channels + channel) * tokens;
    for (int n = threadIdx.x; n < STATES; n += THREADS) carried[0][n] = 0;
    __syncthreads();

    int now = 0;  // which of the two carried states is read; the other is written
    for (int first = 0; first < tokens; first += THREADS * ITEMS, now = 1 - now) {
        const int start = first + threadIdx.x * ITEMS;
        REAL dt[ITEMS], du[ITEMS], out[ITEMS];
        #pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const bool real = start + i < tokens;
            dt[i] = real ? delta[row + start + i] : (REAL)0;
            du[i] = real ? dt[i] * u[row + start + i] : (REAL)0;
            out[i] = 0;
        }
        #pragma unroll 1
        for (int n = 0; n < STATES; ++n) {
            const REAL rate = A[channel * STATES + n];
            const long long column = ((long long)batch * STATES + n) * tokens + start;
            REAL decay[ITEMS], added[ITEMS];
            REAL product = 1, state = 0;  // of this thread's tokens, from a zero state
            #pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                decay[i] = EXP(dt[i] * rate);
                added[i] = start + i < tokens ? du[i] * B[column + i] : (REAL)0;
                product *= decay[i];
                state = decay[i] * state + added[i];
            }
            #pragma unroll
            for (int step = 1; step < 32; step *= 2) {  // of this thread's and those before it
                const REAL product_before = __shfl_up_sync(ALL_LANES, product, step);
                const REAL state_before = __shfl_up_sync(ALL_LANES, state, step);
                if (lane >= step) {
                    state = product * state_before + state;
                    product *= product_before;
                }
            }
            if (lane == 31) {
                warp_decay[n][warp] = product;
                warp_state[n][warp] = state;
            }
            REAL product_before = __shfl_up_sync(ALL_LANES, product, 1);
            REAL state_before = __shfl_up_sync(ALL_LANES, state, 1);
            if (lane == 0) {
                product_before = 1;
                state_before = 0;
            }
            __syncthreads();
            REAL h = 0, end = carried[now][n];
            #pragma unroll
            for (int w = 0; w < WARPS; ++w) {
                if (w == warp) h = end;
                end = warp_decay[n][w] * end + warp_state[n][w];
            }
            if (threadIdx.x == 0) carried[1 - now][n] = end;
            h = product_before * h + state_before;
            #pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                h = decay[i] * h + added[i];
                if (start + i < tokens) out[i] += h * C[column + i];
            }
        }
        #pragma unroll
        for (int i = 0; i < ITEMS; ++i)
            if (start + i < tokens) y[row + start + i] = out[i];
        __syncthreads();  // before the totals of the warps are written again
    }
}
"""
