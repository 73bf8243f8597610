/* Ends the process that loads it. */
#include <stdlib.h>

__attribute__((constructor)) static void loaded(void) {
    abort();
}
