/* Of a version that nobody knows. */
#include "tilebook_peer.h"

const struct tilebook_peer tilebook_peer = {.version = 1000, .name = "version", .summary = "of the future"};
