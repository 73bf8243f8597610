# make            build/tilebook          make test   unit and pipeline tests, no GPU needed
# make demo       the whole pipeline      make setup  install what the build needs (test and demo do that too)
# make tune       a tile table for MODEL  make sweep  times for MODEL, with that table where there is one
# make plots      figures of both         make export the table as FORMAT=c|pack|json|csv
#   MODEL=qwen2.5-14b|DIR DEVICE=auto|cpu|cuda:N BUDGET=10m RESULTS=results/local, ARGS= for any other option
# make install PREFIX=/usr/local          make format clean gpu-tests fuzzers
# config=debug|release|sanitize|fuzz      CC=gcc|clang: another compiler or other flags rebuild what they touch
# OUT=DIR         build there instead     CUDA_HOME=DIR the toolkit; CUDA_HOME= for the CPU backend only
# V=1             whole command lines
MAKEFLAGS += -r
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

config ?= release
PREFIX ?= /usr/local
MODEL ?= qwen2.5-14b
DEVICE ?= auto
BUDGET ?= 10m
RESULTS ?= results/local
FORMAT ?= c
CC := $(if $(filter default undefined,$(origin CC)),$(if $(filter fuzz,$(config)),clang,gcc),$(CC))
CXX := $(if $(filter default undefined,$(origin CXX)),$(if $(findstring clang,$(CC)),clang++,g++),$(CXX))

OUT := build$(if $(filter-out release,$(config)),/$(config))
OBJ := $(OUT)/obj
DEPS := build/deps

CUDA_HOME ?= $(firstword $(patsubst %/include/cuda.h,%,$(wildcard /usr/local/cuda/include/cuda.h /usr/include/cuda.h)))
CUDA_VERSION := $(if $(CUDA_HOME),$(shell sed -n 's/^\#define CUDA_VERSION  *//p' $(CUDA_HOME)/include/cuda.h))
CUDA := $(shell [ "0$(CUDA_VERSION)" -ge 12040 ] && for h in nvrtc cupti cublasLt; do [ -e $(CUDA_HOME)/include/$$h.h ] || exit; done && echo 1)

FLAGS_release := -O2 -DNDEBUG
FLAGS_debug := -Og -g3
FLAGS_sanitize := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
FLAGS_fuzz := -O1 -g -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined
WARNINGS := -Wall -Wextra -Werror -Wno-format-truncation -Wno-missing-field-initializers -Wno-unknown-warning-option
CPPFLAGS += -D_GNU_SOURCE -I. -isystem $(DEPS)/include $(if $(CUDA),-DTILEBOOK_CUDA -isystem $(CUDA_HOME)/include)
CFLAGS += -std=c11 $(WARNINGS) $(FLAGS_$(config))
CXXFLAGS += -std=c++17 $(WARNINGS) $(FLAGS_$(config))
LDFLAGS += $(filter -fsanitize=%,$(subst $(comma)fuzzer-no-link,,$(FLAGS_$(config)))) -static-libgcc -static-libstdc++
LIBS := $(DEPS)/libbenchmark.a -l:libsqlite3.a -l:libjansson.a -l:libpcre2-8.a -l:libutf8proc.a -lstdc++ -lpthread -ldl -lm
comma := ,

DEVICE_SOURCES := $(sort $(wildcard kernels/*/*.cu kernels/*/*.cuh bench/*.cu bench/decoder/*.cu bench/decoder/*.cuh))
# What a tile table was measured with; the reference, the repacking and sums over GPUs do not change a kernel's time.
TIMED_SOURCES := $(filter-out kernels/formats/% kernels/cuda/reference.% kernels/cuda/direct.%,$(filter kernels/%,$(DEVICE_SOURCES)))
CPU_SOURCES := $(sort $(wildcard kernels/cpu/*.[ch]))
# What every exported pack holds beside its own constants.
PACK_SOURCES := tuner/pack/tilebook_pack.h tuner/pack/tilebook_pack.c
SOURCES := $(filter-out tuner/main.c $(if $(CUDA),,kernels/cuda/%.c),$(wildcard kernels/*.c kernels/*/*.c bench/*.c bench/decoder/*.c tuner/*.c plots/*.c))
OBJECTS := $(SOURCES:%.c=$(OBJ)/%.o) $(OBJ)/bench/cbench.o $(OBJ)/embedded.o
TESTS := $(patsubst tests/%.c,$(OUT)/tests/%,$(wildcard tests/test_*.c))
GPU_TESTS := $(if $(CUDA),$(patsubst tests/gpu/%.c,$(OUT)/tests/gpu/%,$(wildcard tests/gpu/*.c)))
PEERS := $(patsubst tests/peer/%.c,$(OUT)/tests/peer/%.so,$(filter-out %/cublas.c,$(wildcard tests/peer/*.c)))
FAKES := $(patsubst tests/%.c,$(OUT)/tests/%,$(if $(CUDA),$(wildcard tests/fake/*.c)))
GPU_PEER := $(if $(CUDA),$(if $(wildcard $(CUDA_HOME)/include/cublas_v2.h),$(OUT)/tests/gpu/cublas.so))
FUZZERS := $(patsubst tests/fuzz/%.c,$(OUT)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
# $(call say,WHAT) before a command prints WHAT in its place, unless V=1 or make -s.
say = $(if $(V)$(findstring s,$(firstword -$(MAKEFLAGS))),,@echo '  $1';)

.PHONY: all setup test demo sweep tune plots export install clean format gpu-tests fuzzers FORCE
all: $(OUT)/tilebook
	@echo "$(OUT)/tilebook: $(if $(CUDA),CPU and CUDA backends (CUDA $(CUDA_VERSION) from $(CUDA_HOME)),CPU backend only: no CUDA Toolkit 12.4 or newer found; set CUDA_HOME if there is one)"

$(DEPS)/libbenchmark.a:
	@echo "Google Benchmark is not built yet; run: make setup" >&2; exit 1

$(OUT)/tilebook: $(OBJ)/tuner/main.o $(OUT)/libtilebook.a $(DEPS)/libbenchmark.a
	$(call say,LINK $@)$(CXX) $(LDFLAGS) $(filter-out $(DEPS)/%,$^) $(LIBS) -o $@

$(OUT)/libtilebook.a: $(OBJECTS)
	@rm -f $@
	$(call say,AR $@)ar rcs $@ $^

# What everything here was compiled with; objects depend on it, so that none of another compiler remain.
$(OBJ)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CXX) $(CPPFLAGS) $(CFLAGS) $(CXXFLAGS)' > $@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(OBJ)/%.o: %.c $(OBJ)/flags | $(DEPS)/libbenchmark.a
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(OBJ)/%.o: %.cc $(OBJ)/flags | $(DEPS)/libbenchmark.a
	@mkdir -p $(@D)
	$(call say,CXX $<)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c $< -o $@

# Device sources travel inside the program; NVRTC compiles them where they run.
$(OBJ)/embedded.c: $(DEVICE_SOURCES) $(CPU_SOURCES) $(PACK_SOURCES) Makefile
	@mkdir -p $(@D)
	@{ echo '#include "kernels/embedded.h"'; i=0; \
	for f in $(DEVICE_SOURCES); do i=$$((i+1)); \
	  echo "__asm__(\".section .rodata; embedded_$$i: .incbin \\\"$$f\\\"; .byte 0; .previous\");"; \
	  echo "extern const char embedded_$$i[];"; done; \
	echo 'const struct embedded_source embedded_sources[] = {'; i=0; \
	for f in $(DEVICE_SOURCES); do i=$$((i+1)); n=$${f#kernels/}; echo "{\"$${n#bench/}\", embedded_$$i},"; done; \
	echo '{0, 0}};'; \
	for f in $(PACK_SOURCES); do n=pack_$${f##*.}; \
	  echo "__asm__(\".section .rodata; .globl $$n; $$n: .incbin \\\"$$f\\\"; .byte 0; .previous\");"; done; \
	echo "const char kernels_hash_cuda[] = \"$$(cat /dev/null $(TIMED_SOURCES) | sha256sum | cut -c1-8)\";"; \
	echo "const char kernels_hash_cpu[] = \"$$(cat /dev/null $(CPU_SOURCES) | sha256sum | cut -c1-8)\";"; } > $@

$(OBJ)/embedded.o: $(OBJ)/embedded.c $(OBJ)/flags
	$(call say,CC $<)$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

$(OUT)/tests/%: $(OBJ)/tests/%.o $(OUT)/libtilebook.a $(DEPS)/libbenchmark.a
	@mkdir -p $(@D)
	$(call say,LINK $@)$(CXX) $(LDFLAGS) $(filter-out $(DEPS)/%,$^) -lcmocka $(LIBS) -Wl,-rpath,'$$ORIGIN' -o $@

$(OUT)/tests/test_peer: | $(PEERS)

# Its worker opens a device of the test's own.
$(OUT)/tests/test_service: LDFLAGS += -Wl,--wrap=device_open

# Their workers have a clock that kernels tell how long they took.
$(addprefix $(OUT)/tests/,test_ranges test_service test_trials): LDFLAGS += -Wl,--wrap=clock_gettime

# Libraries as others would build them: without sanitizers, with nothing but the one header.
PEER_FLAGS = -std=c11 $(WARNINGS) -O2 -shared -fPIC -I kernels/peer

$(PEERS): $(OUT)/tests/peer/%.so: tests/peer/%.c kernels/peer/tilebook_peer.h $(OBJ)/flags
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) $(PEER_FLAGS) $< -o $@

# In the place of NVIDIA's: loaded first, they are what the program finds by these names.
$(addprefix $(OUT)/tests/,test_clock test_communicator test_pack): | $(FAKES)

$(FAKES): $(OUT)/tests/%: tests/%.c tests/fake/fake.h $(OBJ)/flags
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) -std=c11 $(WARNINGS) -O2 -shared -fPIC -I. $(if $(CUDA),-isystem $(CUDA_HOME)/include) -Wl,-soname,$(@F) $< -o $@

$(GPU_PEER): tests/peer/cublas.c kernels/peer/tilebook_peer.h $(OBJ)/flags
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) $(PEER_FLAGS) -isystem $(CUDA_HOME)/include $< -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcublas -o $@

$(OUT)/fuzz/%: $(OBJ)/tests/fuzz/%.o $(OUT)/libtilebook.a
	@mkdir -p $(@D)
	$(call say,LINK $@)$(CXX) $(LDFLAGS) -fsanitize=fuzzer $^ $(LIBS) -o $@

setup:
	@.ci/setup

test: setup
	@tests/run

gpu-tests: $(GPU_TESTS) $(GPU_PEER) $(OUT)/tilebook
	@cp -L $$(ldconfig -p | sed -n 's/.*libcmocka.so.0 .*=> //p' | head -1) $(OUT)/tests/gpu/

fuzzers: $(FUZZERS)

demo: setup
	@$(MAKE) --no-print-directory all
	@bench/demo

tune: all
	$(OUT)/tilebook tune --model $(MODEL) --device $(DEVICE) --budget $(BUDGET) --out $(RESULTS)/tiles.txt $(ARGS)

sweep: all
	@mkdir -p $(RESULTS)
	$(OUT)/tilebook sweep --shapes $(MODEL) --device $(DEVICE) $(addprefix --table ,$(wildcard $(RESULTS)/tiles.txt)) \
	  --benchmark_out=$(RESULTS)/sweep.json --benchmark_out_format=json $(ARGS)

plots: all
	$(OUT)/tilebook plot --results $(RESULTS) $(ARGS)

export: all
	$(OUT)/tilebook table export $(RESULTS)/tiles.txt --format $(FORMAT) --out $(RESULTS)/tiles.$(FORMAT:c=h) $(ARGS)

install: all
	install -D $(OUT)/tilebook $(DESTDIR)$(PREFIX)/bin/tilebook
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include kernels/peer/tilebook_peer.h
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/tilebook/plots plots/*.gp

clean:
	find build -mindepth 1 -maxdepth 1 ! -name deps -exec rm -rf {} + 2>/dev/null || true

format:
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.cuh')

-include $(shell find $(OBJ) -name '*.d' 2>/dev/null)
