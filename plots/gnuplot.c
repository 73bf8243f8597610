#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plots/gnuplot.h"

int gnuplot_scripts(char scripts[4096], struct error *error) {
    static const char *const places[] = {"../plots", "../../plots", "../share/tilebook/plots"};
    char program[2048], entry[4096 + 32];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0) return error_set(error, "/proc/self/exe: %s", strerror(errno));
    program[length] = 0;
    *strrchr(program, '/') = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(scripts, 4096, "%s/%s", program, places[i]);
        snprintf(entry, sizeof entry, "%s/figure.gp", scripts);
        if (!access(entry, R_OK)) return 0;
    }
    return error_set(
        error,
        "there is no plots/figure.gp in %s/.. or %s/../.., and none in %s/../share/tilebook/plots; run the "
        "program in its source tree, or `make install`",
        program, program, program);
}

/* argv[0] in the folder `directory`, its stdout sent to stderr; waits for it. */
static int run_in(const char *directory, char *const argv[], struct error *error) {
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, directory);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    /* The scripts are UTF-8, whatever the locale here. */
    setenv("LC_ALL", "C.UTF-8", 1);
    int failure = posix_spawnp(&child, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failure == ENOENT)
        return error_set(error, "gnuplot is not installed; on Debian and Ubuntu: apt-get install gnuplot-nox "
                                "fonts-dejavu-core");
    if (failure) return error_set(error, "cannot start %s: %s", argv[0], strerror(failure));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return error_set(error, "waiting for %s: %s", argv[0], strerror(errno));
    if (status) return error_set(error, "%s failed; its message is above", argv[0]);
    return 0;
}

/* gnuplot does not look whether its output could be written; a PNG ends in IEND and its checksum, an SVG in </svg>. */
static bool is_complete(const char *path) {
    char tail[16] = "";
    FILE *file = fopen(path, "rb");
    bool read = file && !fseek(file, -(long)sizeof tail, SEEK_END) && fread(tail, sizeof tail, 1, file);
    if (file) fclose(file);
    return read && (memmem(tail, sizeof tail, "IEND", 4) || memmem(tail, sizeof tail, "</svg>", 6));
}

int gnuplot_draw(const char *scripts, const struct figure *figure, const struct figure_text *text,
                 const struct figure_input *input, const char *data, const char *out, const char *format,
                 struct error *error) {
    char path[4096], partial[4096 + 16], panels[16], read_gbs[32], matrix_tflops[32];
    snprintf(path, sizeof path, "%s/%s.%s", out, figure->name, format);
    snprintf(partial, sizeof partial, "%s.%ld", path, (long)getpid());
    snprintf(panels, sizeof panels, "%d", text->panels);
    snprintf(read_gbs, sizeof read_gbs, "%.6g", input->sweep->read_gbs);
    snprintf(matrix_tflops, sizeof matrix_tflops, "%.6g", input->sweep->matrix_tflops);
    const char *argv[] = {"gnuplot", "-d",        "-c",           "figure.gp", figure->name, data,          partial,
                          format,    text->title, text->subtitle, panels,      read_gbs,     matrix_tflops, NULL};
    if (run_in(scripts, (char *const *)argv, error)) {
        unlink(partial);
        return error_prefix(error, "%s", path);
    }
    if (!is_complete(partial)) {
        unlink(partial);
        return error_set(error, "%s: could not be written; is the disk full?", path);
    }
    if (rename(partial, path)) {
        int cause = errno;
        unlink(partial);
        return error_set(error, "%s: %s", path, strerror(cause));
    }
    return 0;
}
