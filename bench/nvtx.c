#include "bench/nvtx.h"

#ifdef TILEBOOK_CUDA

#include <nvtx3/nvToolsExt.h>

static nvtxDomainHandle_t domain(void) {
    static nvtxDomainHandle_t handle;
    if (!handle) handle = nvtxDomainCreateA("tilebook");
    return handle;
}

void nvtx_push(const char *name) {
    nvtxEventAttributes_t attributes = {
        .version = NVTX_VERSION,
        .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
        .messageType = NVTX_MESSAGE_TYPE_REGISTERED,
        .message = {.registered = nvtxDomainRegisterStringA(domain(), name)},
    };
    nvtxDomainRangePushEx(domain(), &attributes);
}

void nvtx_pop(void) {
    nvtxDomainRangePop(domain());
}

#else

void nvtx_push(const char *name) {
    (void)name;
}

void nvtx_pop(void) {
}

#endif
