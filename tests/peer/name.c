/* Its name would not be one of a row. */
#include "tilebook_peer.h"

static int run(const struct tilebook_call *call, char *why) {
    (void)call, (void)why;
    return 0;
}

const struct tilebook_peer tilebook_peer = {.version = TILEBOOK_PEER_VERSION,
                                            .name = "A/B, C",
                                            .summary = "badly named",
                                            .ops = 1u << TILEBOOK_FP16_GEMM,
                                            .run = run};
