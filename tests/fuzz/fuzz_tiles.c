/* Whatever parses as a tile table must survive a lookup, printing, and parsing what was printed. */
#include <stdint.h>
#include <stdlib.h>

#include "kernels/tiles.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct tile_table table, again;
    char message[TILES_MESSAGE], *text = NULL;
    size_t bytes = 0;
    if (tiles_parse((const char *)data, size, "fuzz", &table, message)) return 0;
    for (size_t i = 0; i < table.count; i++) {
        const struct tile_row *row = &table.rows[i];
        if (tiles_find(&table, row->op, row->k, row->n, row->group, row->m_high) != row) abort();
    }
    FILE *stream = open_memstream(&text, &bytes);
    if (stream) {
        tiles_print(&table, stream);
        fclose(stream);
        if (tiles_parse(text, bytes, "printed", &again, message) || again.count != table.count) abort();
        tiles_free(&again);
    }
    free(text);
    tiles_free(&table);
    return 0;
}
