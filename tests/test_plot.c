/* `tilebook plot` on a small made-up set of results: what it writes, skips and refuses. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/model_dir.h"
#include "bench/rows.h"
#include "plots/figures.h"

#define FIXTURE "tests/fixtures/plots"

static const char *const names[] = {"speedup",     "tflops", "roofline", "ecdf",  "card",   "heatmap",
                                    "convergence", "peers",  "floor",    "token", "against"};
enum { FIGURES = sizeof names / sizeof *names };

/* Runs the program with `arguments` (split at blanks) and an optional PATH; its stderr goes to `words`. */
static int run_path(const char *search, const char *arguments, char words[8192]) {
    char copy[1024], *rest = copy, *argv[32] = {getenv("TILEBOOK"), "plot"};
    int count = 2, ends[2], status;
    assert_non_null(argv[0]);
    snprintf(copy, sizeof copy, "%s", arguments);
    for (char *part; (part = strsep(&rest, " "));)
        if (*part) argv[count++] = part;
    argv[count] = NULL;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (!child) {
        dup2(ends[1], STDERR_FILENO);
        dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        if (search) setenv("PATH", search, 1);
        execv(argv[0], argv);
        _exit(99);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got; (got = read(ends[0], words + used, 8191 - used)) > 0;) used += (size_t)got;
    words[used] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int run(const char *arguments, char words[8192]) {
    return run_path(NULL, arguments, words);
}

static size_t read_file(const char *directory, const char *name, const char *ending, char *text, size_t size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s%s", directory, name, ending);
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    size_t length = fread(text, 1, size - 1, file);
    text[length] = 0;
    fclose(file);
    return length;
}

static bool is_drawn(const char *directory, const char *name) {
    static char text[1 << 20];
    bool png = read_file(directory, name, ".png", text, sizeof text) > 4000 && !memcmp(text, "\x89PNG\r\n\x1a\n", 8);
    size_t length = read_file(directory, name, ".svg", text, sizeof text);
    return png && length > 2000 && strstr(text, "<svg") && strstr(text, "</svg>");
}

static int count_files(const char *directory) {
    int count = 0;
    DIR *list = opendir(directory);
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));) count += *entry->d_name != '.';
    closedir(list);
    return count;
}

static void copy_fixture(const char *directory, const char *name) {
    char text[16384];
    assert_true(read_file(FIXTURE, name, "", text, sizeof text) > 0);
    model_dir_text(directory, name, text);
}

static void test_all(void **state) {
    (void)state;
    char directory[64], arguments[256], words[8192], text[65536];
    model_dir_make(directory);
    snprintf(arguments, sizeof arguments, "--results " FIXTURE " --out %s", directory);
    assert_int_equal(run(arguments, words), 0);
    assert_string_equal(words, "");
    for (int i = 0; i < FIGURES; i++)
        if (!is_drawn(directory, names[i])) fail_msg("%s was not drawn", names[i]);
    assert_int_equal(count_files(directory), 2 * FIGURES);
    assert_true(read_file(directory, "speedup", ".svg", text, sizeof text) > 0);
    assert_says(text, "Test CPU (avx2)|qkv: K = 256, N = 512|marlin_gemm/cpu, group 128, zeros|M (tokens)");
    assert_true(read_file(directory, "roofline", ".svg", text, sizeof text) > 0);
    assert_says(text, "12.5 GB/s|0.08 TFLOP/s|FLOP/byte");
    assert_true(read_file(directory, "peers", ".svg", text, sizeof text) > 0);
    assert_says(text,
                "cold stream cupti, group 128; broken lines: peers|slow_int4|other_int4|int4, zero points|read floor");
    assert_null(strstr(text, "awq_dequant"));
    assert_true(read_file(directory, "token", ".svg", text, sizeof text) > 0);
    assert_says(text, "Test CPU, clock cupti|>awq,<|>batch 1 at 512<|>none,<|>batch 8 at 512<|>100<|>60<|lm_head|gaps");
    assert_true(read_file(directory, "floor", ".svg", text, sizeof text) > 0);
    assert_says(text, "bound for int4|cuBLASLt fp16|head: K = 256, N = 768");
    model_dir_remove(directory);
}

static void test_one_figure(void **state) {
    (void)state;
    char directory[64], arguments[256], words[8192];
    model_dir_make(directory);
    snprintf(arguments, sizeof arguments, "-r " FIXTURE " -o %s -f heatmap --x threads --y block", directory);
    assert_int_equal(run(arguments, words), 0);
    assert_true(is_drawn(directory, "heatmap"));
    assert_int_equal(count_files(directory), 2);
    snprintf(arguments, sizeof arguments, "-r " FIXTURE " -o %s -f ecdf --m 16", directory);
    assert_int_equal(run(arguments, words), 1);
    assert_says(words, "ecdf skipped: no row of sweep.json at this M has samples");
    snprintf(arguments, sizeof arguments, "-r " FIXTURE " -o %s -f heatmap --x stages", directory);
    assert_int_equal(run(arguments, words), 1);
    assert_says(words, "stages|block=16 unroll=4 threads=1");
    model_dir_remove(directory);
}

static void test_missing(void **state) {
    (void)state;
    char directory[64], arguments[256], words[8192];
    model_dir_make(directory);
    snprintf(arguments, sizeof arguments, "-r %s", directory);
    assert_int_equal(run(arguments, words), 1);
    assert_says(words, "no sweep.json|tilebook sweep --benchmark_out=|no trials.csv|tilebook tune|no report.csv|"
                       "tilebook sweep --report |no figure was drawn");
    copy_fixture(directory, "trials.csv");
    assert_int_equal(run(arguments, words), 0);
    assert_says(words, "speedup skipped|tflops skipped|roofline skipped");
    assert_null(strstr(words, "heatmap"));
    assert_true(is_drawn(directory, "heatmap") && is_drawn(directory, "convergence"));
    assert_int_equal(count_files(directory), 5);
    model_dir_remove(directory);
}

static void test_usage(void **state) {
    (void)state;
    char words[8192];
    assert_int_equal(run("--figure pie", words), 2);
    assert_says(words, "'pie'|speedup, tflops, roofline, ecdf, card, heatmap, convergence");
    assert_int_equal(run("--nonsense", words), 2);
    assert_int_equal(run("leftover", words), 2);
    assert_says(words, "'leftover'|--results");
    assert_int_equal(run("--x a --y a", words), 2);
    assert_int_equal(run("--results /nowhere/at/all", words), 1);
    assert_says(words, "/nowhere/at/all|No such file");
}

static void test_no_gnuplot(void **state) {
    (void)state;
    char directory[64], arguments[256], words[8192];
    model_dir_make(directory);
    snprintf(arguments, sizeof arguments, "-r " FIXTURE " -o %s", directory);
    assert_int_equal(run_path("/nowhere", arguments, words), 1);
    assert_says(words, "gnuplot is not installed|apt-get install gnuplot-nox");
    assert_int_equal(count_files(directory), 0);
    model_dir_remove(directory);
}

/* Names with all that a shell or gnuplot could trip over: they must come out as text and run nothing. */
static void test_hostile_names(void **state) {
    (void)state;
    static const char sweep[] =
        "{\"context\": {\"device\": \"`touch HACKED` $(touch HACKED) '\\\"; system('touch HACKED') #\\n%s {/Bold x}\","
        " \"read_gbs\": \"10\", \"matrix_tflops\": \"0.1\"}, \"benchmarks\": [\n"
        "{\"name\": \"fp16_gemm/`touch HACKED`/a\\\"b\\\\c\\n|x/k:256/n:512/g:0/z:0/m:1/-\", \"us\": 10.0},\n"
        "{\"name\": \"marlin_gemm/$(touch HACKED)/a\\\"b\\\\c\\n|x/k:256/n:512/g:128/z:1/m:1/-\", \"us\": 5.0}]}";
    char directory[64], arguments[256], words[8192], text[65536];
    model_dir_make(directory);
    model_dir_text(directory, "sweep.json", sweep);
    snprintf(arguments, sizeof arguments, "-r %s -f speedup -f tflops -f roofline", directory);
    if (run(arguments, words)) fail_msg("%s", words);
    assert_true(is_drawn(directory, "speedup") && is_drawn(directory, "tflops") && is_drawn(directory, "roofline"));
    assert_int_equal(count_files(directory), 7);
    assert_true(read_file(directory, "speedup", ".svg", text, sizeof text) > 0);
    assert_says(text, "marlin_gemm/$(touch HACKED), group 128, zeros|>a'b'c'");
    assert_int_not_equal(access("plots/HACKED", F_OK), 0);
    assert_int_not_equal(access("HACKED", F_OK), 0);
    model_dir_remove(directory);
}

#define HEADER "op,k,n,group,m,kernel,configuration,order,elapsed_s,status,us,p20_us,p80_us,gbs,tflops,is_default\n"

#define MATCH(low, ratio, high)                                                                                        \
    "{\"quantization\": \"none\", \"against\": \"untuned\", \"batch\": 1, \"decode\": {\"tok_s\": 1.0, "               \
    "\"against_tok_s\": 1.0, "                                                                                         \
    "\"speedup\": 1.0, \"low\": " low ", \"high\": " high "}, \"prefill\": {\"tok_s\": 1.0, \"against_tok_s\": 1.0, "  \
    "\"speedup\": " ratio ", \"low\": 1.0, \"high\": 2.0}}\n"
#define TOKEN                                                                                                          \
    "{\"method\": \"awq\", \"device_name\": \"x\", \"clock\": \"y\", \"batch\": 1, \"positions\": 1, \"kernels\": ["

static void test_bad_files(void **state) {
    (void)state;
    static const struct {
        const char *file, *text, *says;
    } cases[] = {
        {"sweep.json", "", "sweep.json:1|not the JSON of a sweep"},
        {"sweep.json", "{\"benchmarks\": [", "not the JSON of a sweep"},
        {"sweep.json", "[1]", "no array 'benchmarks'"},
        {"sweep.json", "{\"benchmarks\": [7]}", "has no name"},
        {"sweep.json", "{\"benchmarks\": [{\"name\": \"BM_Sort/1024\", \"us\": 1}]}", "BM_Sort/1024|OP/KERNEL/LAYER"},
        {"sweep.json", "{\"benchmarks\": [{\"name\": \"conv/cpu/q/k:256/n:512/g:0/z:0/m:1/-\", \"us\": 1}]}", "conv"},
        {"sweep.json", "{\"benchmarks\": [{\"name\": \"fp16_gemm/cpu/q/k:0/n:512/g:0/z:0/m:1/-\", \"us\": 1}]}",
         "0x512"},
        {"sweep.json", "{\"benchmarks\": [{\"name\": \"fp16_gemm/cpu/q/k:256/n:512/g:0/z:0/m:1/-\", \"us\": -1}]}",
         "field us"},
        {"sweep.json", "{\"benchmarks\": [{\"name\": \"fp16_gemm/cpu/q/k:256/n:512/g:0/z:0/m:1/-\"}]}", "field us"},
        {"sweep.json",
         "{\"benchmarks\": [{\"name\": \"fp16_gemm/cpu/q/k:256/n:512/g:0/z:0/m:1/e:bias/-\", \"us\": 1},"
         "{\"name\": \"fp16_gemm/cpu/q/k:256/n:512/g:0/z:0/m:2/-\", \"us\": 1}]}",
         "epilogue none, but others of q have bias"},
        {"sweep.json",
         "{\"benchmarks\": [{\"name\": \"fp16_gemm/cpu/q/k:256/n:512/g:0/z:0/m:1/e:norm+bias/-\", \"us\": 1},"
         "{\"name\": \"fp16_gemm/cpu/q/k:256/n:512/g:0/z:0/m:2/e:bias/-\", \"us\": 1}]}",
         "epilogue bias, but others of q have norm+bias"},
        {"sweep.json",
         "{\"benchmarks\": [{\"name\": \"fp16_gemm/cpu/q/k:256/n:512/g:0/z:0/m:1/e:relu/-\", \"us\": 1}]}", "'relu'"},
        {"sweep.json",
         "{\"benchmarks\": [{\"name\": \"fp16_gemm/cpu/q/k:256/n:512/g:0/z:0/m:1/e:norm+/-\", \"us\": 1}]}",
         "unknown epilogue ''"},
        {"sweep.json", "{\"benchmarks\": []}", "no figure was drawn"},
        {"trials.csv", "op,k,n\n", "trials.csv:1|no column 'group'"},
        {"trials.csv", HEADER "marlin_gemm,256\n", "trials.csv:2|2 columns; the header has 16"},
        {"trials.csv", HEADER "marlin_gemm,many,512,128,1,x,a=1,1,0,ok,5,,,,,1\n", "trials.csv:2|k is 'many'"},
        {"trials.csv", HEADER "marlin_gemm,256,512,128,1,x,a=1,1,0,ok,fast,,,,,1\n", "trials.csv:2|us is 'fast'"},
        {"trials.csv", HEADER "marlin_gemm,256,512,128,1,,a=1,1,0,ok,5,,,,,1\n",
         "trials.csv:2|kernel has 0 characters"},
        {"trials.csv", HEADER "marlin_gemm,256,512,128,1,x,a=1,1,0,correctness,,,,,,1\n", "no trial has succeeded"},
        {"trials.csv", "", "no figure was drawn"},
        {"report.csv", "op,layer,k\n", "report.csv:1|no column 'n'"},
        {"report.csv", ROWS_HEADER "\ngemm,q,256,512,128,1,1,none,r,x,a,5,5,5,,\n", "report.csv:2|unknown op 'gemm'"},
        {"report.csv", ROWS_HEADER "\nfp16_gemm,q,256,512,0,0,1,none,r,x,a,5,5,5,-1,\n",
         "report.csv:2|floor_us is '-1'"},
        {"report.csv", ROWS_HEADER "\nfp16_gemm,q,256,512,0,0,1,none,r,x,a,,5,5,,\n", "report.csv:2|us is ''"},
        {"report.csv", ROWS_HEADER "\nmarlin_gemm,q,256,512,128,1,1,none,r,x,a,5,5,5,,\n",
         "peers skipped: no int4 row of report.csv has cublas_us|floor skipped: no row|no figure was drawn"},
        {"sweep.json.samples", "name\n", "sweep.json.samples, line 1: it is not '# tilebook samples"},
        {"sweep.json.states", "name\n", "sweep.json.states, line 1: it is not '# tilebook states"},
        {"sweep.json.samples", SAMPLES_HEADER "\na cupti 1 1 5\n", "ecdf skipped: no row of sweep.json at this M"},
        {"profile.jsonl", "\n", "profile.jsonl:1|decode --profile --json"},
        {"profile.jsonl", "{\"kernels\": []}", "profile.jsonl:1|decode --profile --json"},
        {"profile.jsonl", TOKEN "{\"op\": \"qkv\", \"us\": 3}]}", "profile.jsonl:1|lacks op, us or gap_us"},
        {"profile.jsonl", TOKEN "]}\n" TOKEN "{\"op\": \"qkv\", \"us\": -3, \"gap_us\": 0}]}",
         "profile.jsonl:2|qkv took -3"},
        {"profile.jsonl", "", "token skipped: profile.jsonl holds no token"},
        {"against.jsonl", "{}\n", "against.jsonl:1|decode --bench --against TABLE --json"},
        {"against.jsonl", MATCH("1.1", "1.2", "1.3"), "against.jsonl:1|decode --bench --against TABLE --json"},
        {"against.jsonl", MATCH("0.0", "1.0", "1.0"), "against.jsonl:1|decode --bench --against TABLE --json"},
        {"against.jsonl", "", "against skipped: against.jsonl holds no comparison"},
        {"sweep.json.states", STATES_HEADER "\n", "card skipped: sweep.json.states holds no state"},
    };
    char directory[64], arguments[256], words[8192];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_dir_make(directory);
        model_dir_text(directory, cases[i].file, cases[i].text);
        snprintf(arguments, sizeof arguments, "-r %s", directory);
        assert_int_equal(run(arguments, words), 1);
        assert_says(words, cases[i].says);
        assert_int_equal(count_files(directory), 1);
        model_dir_remove(directory);
    }
}

/* A table that cannot be read costs the device's name and a line, not the figures. */
static void test_bad_table(void **state) {
    (void)state;
    char directory[64], arguments[256], words[8192];
    model_dir_make(directory);
    copy_fixture(directory, "trials.csv");
    model_dir_text(directory, "tiles.txt", "not a table\n");
    snprintf(arguments, sizeof arguments, "-r %s -f convergence", directory);
    assert_int_equal(run(arguments, words), 0);
    assert_says(words, "tiles.txt");
    assert_true(is_drawn(directory, "convergence"));
    model_dir_remove(directory);
}

/* The fixture as figures get it, and the folder of their data. */
static struct {
    struct results_sweep sweep;
    struct results_trials trials;
    struct results_report report;
    struct samples samples;
    struct states states;
    struct results_profiles profiles;
    struct results_matches matches;
    char directory[64];
} drawn;

/* Reads the fixture and writes the data of every figure. */
static int draw(void **state) {
    (void)state;
    struct error error;
    assert_int_equal(results_read_sweep(FIXTURE "/sweep.json", &drawn.sweep, &error), 0);
    assert_int_equal(results_read_trials(FIXTURE "/trials.csv", &drawn.trials, &error), 0);
    assert_int_equal(results_read_report(FIXTURE "/report.csv", &drawn.report, &error), 0);
    assert_int_equal(results_read_peers(FIXTURE "/peers.csv", &drawn.report, &error), 0);
    assert_int_equal(results_read_peers(FIXTURE "/peers-elsewhere.csv", &drawn.report, &error), 0);
    assert_int_equal(samples_read(FIXTURE "/sweep.json.samples", &drawn.samples, &error), 0);
    assert_int_equal(states_read(FIXTURE "/sweep.json.states", &drawn.states, &error), 0);
    assert_int_equal(results_read_profiles(FIXTURE "/profile.jsonl", &drawn.profiles, &error), 0);
    assert_int_equal(results_read_matches(FIXTURE "/against.jsonl", &drawn.matches, &error), 0);
    const struct figure_input input = {.sweep = &drawn.sweep,
                                       .trials = &drawn.trials,
                                       .report = &drawn.report,
                                       .samples = &drawn.samples,
                                       .states = &drawn.states,
                                       .profiles = &drawn.profiles,
                                       .matches = &drawn.matches,
                                       .device = "Test"};
    model_dir_make(drawn.directory);
    for (int i = 0; i < figure_count; i++) {
        struct figure_text title = {.panels = 0};
        if (figures[i].write(&input, drawn.directory, &title, &error)) fail_msg("%s: %s", figures[i].name, error.text);
        assert_true(title.panels > 0 && *title.title);
    }
    return 0;
}

static int clear(void **state) {
    (void)state;
    model_dir_remove(drawn.directory);
    results_free_profiles(&drawn.profiles);
    results_free_matches(&drawn.matches);
    samples_free(&drawn.samples);
    states_free(&drawn.states);
    results_free_report(&drawn.report);
    results_free_sweep(&drawn.sweep);
    results_free_trials(&drawn.trials);
    return 0;
}

static void test_what_is_read(void **state) {
    (void)state;
    /* 2 layers x (1 dequant + 3 M x 2 products); the failed benchmark and the aggregate do not count */
    assert_int_equal(drawn.sweep.count, 14);
    assert_int_equal(drawn.sweep.layer_count, 2);
    assert_int_equal(drawn.trials.count, 24);
    /* Without those of the other regime, epilogue and group. */
    assert_int_equal(drawn.report.count, 9);
    assert_int_equal(drawn.report.layer_count, 2);
    assert_int_equal(drawn.report.peer_count, 8);
    assert_int_equal(drawn.profiles.op_count, 3);
}

static void test_numbers_of_sweeps(void **state) {
    (void)state;
    char text[32768];
    read_file(drawn.directory, "speedup-1.dat", "", text, sizeof text);
    /* 21/(8*.9) and by 1.1 and 0.95 times that time, 60/(48*.9), 21/(21+9.5) */
    assert_says(text, "\n1 2.91667 2.65152 3.07018\n|\n16 1.38889 1.26263 1.46199\n|\n1 0.688525 0.6");
    read_file(drawn.directory, "tflops-1.dat", "", text, sizeof text);
    assert_says(text, "\n1 0.012483 0.0113482 0.0131401\n"); /* 2*256*512/21 us */
    read_file(drawn.directory, "ecdf-2.dat", "", text, sizeof text);
    assert_says(text,
                "\"K = 256, N = 768\" \"median\" \n1 0\n1 1\n|\"marlin_gemm/cpu, group 128, zeros\" \n0.961685 0\n|"
                "\n0.98210|\n0.99977 0.5\n|\n1.05883 0.99\n");
    read_file(drawn.directory, "card-1.dat", "", text, sizeof text);
    assert_says(text, "\n0.00 1980 2619 |\n1.00 1755 2619 | 1\n|\n8.00 1200 2619 | 2\n|\n\n18.6");
}

static void test_numbers_of_trials(void **state) {
    (void)state;
    char text[32768];
    read_file(drawn.directory, "convergence-1.dat", "", text, sizeof text);
    assert_says(text, "\"fp16_gemm: median of 2 problems\"|\n1 2.4623|\n6 1\n"); /* (64/16)^.4 * sqrt(2) */
    read_file(drawn.directory, "heatmap-1.dat", "", text, sizeof text);
    assert_says(text, "\"block\" \"threads\"|0 1 16 2 NaN NaN|2 1 64 2 23.335 1\n");
}

static void test_numbers_of_reports(void **state) {
    (void)state;
    char text[32768];
    read_file(drawn.directory, "peers-1.dat", "", text, sizeof text);
    assert_string_equal(text, "\"qkv: K = 256, N = 512\" \"read floor\" \n1 3.6 3.6 3.6\n16 4 4 4\n" /* 18/5, 20/5 */
                              "\n\n\"qkv: K = 256, N = 512\" \"int4, zero points\" \n1 3 2.95082 3.05085\n16 2.5 "
                              "2.46914 2.53165\n128 1.5 1.49254 1.50754\n"
                              "\n\n\"qkv: K = 256, N = 512\" \"int4, symmetric\" \n1 3 2.95082 3.10345\n"
                              "\n\n\"qkv: K = 256, N = 512\" \"other_int4\" \n1 3 3 3\n16 2 2 2\n" /* 21/7, 24/12 */
                              "\n\n\"qkv: K = 256, N = 512\" \"slow_int4\" \n1 0.5 0.5 0.5\n");    /* 30/60 */
    read_file(drawn.directory, "floor-1.dat", "", text, sizeof text);
    assert_says(text,
                "\"bound for int4\" \n1 1.2\n|\n64 1.8\n|\"int4, zero points\" \n1 1.2 1.18 1.22\n16 1.6 1.58 1.62\n\n|"
                "\"int4, symmetric\" \n1 1.25 1.20833 1.27083\n|\"fp16\" \n1 1.1 1.0625 1.125\n|\"cuBLASLt fp16\" \n1 "
                "1.1375 1.125 1.1875\n");
    read_file(drawn.directory, "floor-2.dat", "", text, sizeof text);
    assert_says(text, "\"head: K = 256, N = 768\" \"bound for int4\" \nNaN NaN NaN NaN\n|\"fp16\" \n1 1.1 1.05 1.15\n");
}

static void test_numbers_of_tokens(void **state) {
    (void)state;
    char text[32768];
    read_file(drawn.directory, "token-1.dat", "", text, sizeof text);
    assert_string_equal(text, "\"token\" \"all\" \"qkv\" \"attend\" \"lm_head\" \"gaps\"\n"
                              "\"awq, batch 1 at 512\" 100.500 50.250 48.750 0.000 1.500\n"
                              "\"none, batch 8 at 512\" 60.000 20.000 0.000 38.000 2.000\n");
}

static void test_numbers_of_tables(void **state) {
    (void)state;
    char text[4096];
    read_file(drawn.directory, "against-1.dat", "", text, sizeof text);
    assert_string_equal(text, "\"awq_marlin, batch 1\" 1.0350 1.0310 1.0400 300.5 290.2\n"
                              "\"none, batch 8\" 0.9880 0.9750 1.0020 800.0 810.0\n\n\n"
                              "\"awq_marlin, batch 1\" 1.0680 1.0500 1.0800 18900.0 17700.0\n"
                              "\"none, batch 8\" 1.0000 0.9900 1.0100 19000.0 19000.0\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_read, draw, clear),
        cmocka_unit_test_setup_teardown(test_numbers_of_sweeps, draw, clear),
        cmocka_unit_test_setup_teardown(test_numbers_of_trials, draw, clear),
        cmocka_unit_test_setup_teardown(test_numbers_of_reports, draw, clear),
        cmocka_unit_test_setup_teardown(test_numbers_of_tokens, draw, clear),
        cmocka_unit_test_setup_teardown(test_numbers_of_tables, draw, clear),
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_one_figure),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_no_gnuplot),
        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_bad_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
