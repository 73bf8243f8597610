#include "bench/decoder/ops.h"

int ops_open(struct device *device, int head_dim, struct ops *ops, struct error *error) {
    bool cuda = device->backend == BACKEND_CUDA;
    *ops = (struct ops){.device = device, .functions = cuda ? &ops_cuda : &ops_cpu};
    if (head_dim < 2 || head_dim % 2)
        return error_set(error, "head dimension %d is odd; rotary positions need pairs", head_dim);
    return cuda ? ops_cuda_compile(ops, head_dim, error) : 0;
}
