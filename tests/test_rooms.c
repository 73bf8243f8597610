/* The tree itself: includes go one way, every device source travels in the program, every folder says what it holds. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "kernels/embedded.h"

/* What a room may include, beside what lies in its own folder or stands without a room before it. */
static const struct {
    const char *name, *may[6];
} rooms[] = {
    {"kernels", {"kernels/"}},
    {"bench", {"kernels/", "bench/"}},
    {"tuner", {"kernels/", "bench/", "tuner/"}},
    {"plots", {"kernels/", "bench/commands.h", "bench/samples.h", "bench/states.h", "plots/"}},
};

enum { ROOMS = sizeof rooms / sizeof *rooms };

static int files, device_sources, wrong;

static int room_of(const char *path) {
    for (int i = 0; i < ROOMS; i++) {
        size_t length = strlen(rooms[i].name);
        if (!strncmp(path, rooms[i].name, length) && path[length] == '/') return i;
    }
    return -1;
}

static void check_include(const char *path, int line, const char *included) {
    const char *const *may = rooms[room_of(path)].may;
    if (room_of(included) < 0 && strncmp(included, "tests/", 6)) return;
    for (int i = 0; i < 6 && may[i]; i++)
        if (!strncmp(included, may[i], strlen(may[i]))) return;
    print_error("%s:%d: includes %s; arrows go kernels <- bench <- tuner\n", path, line, included);
    wrong++;
}

static void check_includes(const char *path) {
    char line[4096], included[256];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (int number = 1; fgets(line, sizeof line, file); number++)
        if (sscanf(line, " # include \"%255[^\"]\"", included) == 1) check_include(path, number, included);
    fclose(file);
}

static void check_embedded(const char *path) {
    const char *name = strchr(path, '/') + 1;
    FILE *file = fopen(path, "r");
    static char text[1 << 20];
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    device_sources++;
    for (const struct embedded_source *s = embedded_sources; s->name; s++)
        if (!strcmp(s->name, name)) {
            if (strcmp(s->text, text)) fail_msg("%s is embedded as it was, not as it is", path);
            return;
        }
    print_error("%s is not embedded; DEVICE_SOURCES in the Makefile misses it\n", path);
    wrong++;
}

static bool is_empty(const char *path) {
    struct stat status;
    return stat(path, &status) || !status.st_size;
}

static int visit(const char *path, const struct stat *status, int type, struct FTW *position) {
    (void)status, (void)position;
    const char *end = strrchr(path, '.');
    char readme[512];
    snprintf(readme, sizeof readme, "%s/README.md", path);
    if (type == FTW_D && is_empty(readme)) {
        print_error("%s is missing or empty: what lives here, what it may use, how to add one\n", readme);
        wrong++;
    }
    if (type != FTW_F || !end) return 0;
    bool device = !strcmp(end, ".cu") || !strcmp(end, ".cuh");
    if (!device && strcmp(end, ".c") && strcmp(end, ".h") && strcmp(end, ".cc")) return 0;
    files++;
    check_includes(path);
    if (device) check_embedded(path);
    return 0;
}

static void test_rooms(void **state) {
    (void)state;
    for (int i = 0; i < ROOMS; i++) assert_int_equal(nftw(rooms[i].name, visit, 8, FTW_PHYS), 0);
    assert_false(is_empty("results/README.md"));
    assert_false(is_empty("tests/README.md"));
    if (wrong) fail_msg("%d places break the house's rules", wrong);
    assert_true(files > 80);
    assert_true(device_sources > 5);
    int embedded = 0;
    while (embedded_sources[embedded].name) embedded++;
    assert_int_equal(embedded, device_sources);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rooms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
