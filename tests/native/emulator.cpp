// See emulator.h.
#include "emulator.h"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace emulator {
namespace {

constexpr size_t kStack = 96 * 1024;
constexpr uint64_t kMostTurns = 5'000'000;  // In which nothing happens but polling.

struct Fiber;

// Threads that wait until others have come: to a barrier, or with a warp's values.
struct Meeting {
  int arrived = 0;
  std::vector<Fiber*> waiting;
};

struct Warp {
  Meeting meeting;
  uint64_t values[32] = {}, handed[32] = {};
};

struct Barrier {
  int expected = 0, pending = 0, bytes = 0;
  uint32_t phase = 0;
  std::vector<Fiber*> waiting;
};

struct Block {
  std::unique_ptr<uint8_t[]> memory;
  uint8_t* shared = nullptr;
  std::map<int, Meeting> named;
  std::map<uint32_t, Barrier> barriers;
  std::vector<Warp> warps;
};

struct Fiber {
  ucontext_t context;
  Thread thread;
  Block* block = nullptr;
  std::unique_ptr<uint8_t[]> stack;
  bool done = false;
};

struct Copy {
  Block* block;
  uint32_t to;
  void const* from;
  int bytes;
  uint32_t barrier;
};

struct Machine {
  std::vector<Block> blocks;
  std::vector<Fiber> fibers;
  std::vector<Fiber*> ready;
  std::vector<Copy> copies;
  std::mt19937_64 random;
  ucontext_t scheduler;
  Fiber* running = nullptr;
  void (*kernel)(void*) = nullptr;
  void* argument = nullptr;
  int threads = 0, left = 0;
  uint64_t idle = 0;  // Turns since something happened.
  std::string error;
};

Machine* machine;

void leave() { swapcontext(&machine->running->context, &machine->scheduler); }

void wake(std::vector<Fiber*>& waiting) {
  machine->idle = 0;
  machine->ready.insert(machine->ready.end(), waiting.begin(), waiting.end());
  waiting.clear();
}

// The last one of `count` wakes the others and goes on.
template <class Then>
void meet(Meeting& meeting, int count, Then then) {
  if (++meeting.arrived == count) {
    meeting.arrived = 0;
    then();
    wake(meeting.waiting);
  } else {
    meeting.waiting.push_back(machine->running);
    leave();
  }
}

void check(Barrier& barrier) {
  if (barrier.pending == 0 && barrier.bytes == 0) {
    barrier.pending = barrier.expected;
    barrier.phase++;
    wake(barrier.waiting);
  }
}

Barrier& barrier_at(Block& block, uint32_t address) {
  auto found = block.barriers.find(address);
  if (found == block.barriers.end()) {
    fail("a barrier that was not initialized");
  }
  return found->second;
}

void copy_one() {
  size_t chosen = machine->random() % machine->copies.size();
  Copy copy = machine->copies[chosen];
  machine->copies.erase(machine->copies.begin() + long(chosen));
  std::memcpy(copy.block->shared + copy.to, copy.from, size_t(copy.bytes));
  Barrier& barrier = barrier_at(*copy.block, copy.barrier);
  barrier.bytes -= copy.bytes;
  check(barrier);
}

void enter() {
  machine->kernel(machine->argument);
  machine->running->done = true;
  machine->left--;
  leave();
}

}  // namespace

Thread const& thread() { return machine->running->thread; }
uint8_t* shared_memory() { return machine->running->block->shared; }

void progress() { machine->idle = 0; }

void yield() {
  machine->ready.push_back(machine->running);
  leave();
}

// The scheduler ends the run; fibers are dropped as they are.
void fail(char const* why) {
  Thread const& t = thread();
  machine->error = std::string(why) + ", block " + std::to_string(t.block.x) + ", thread " +
                   std::to_string(t.index.x);
  leave();
  std::abort();
}

uint64_t const* exchange_in_warp(uint64_t value) {
  Warp& warp = machine->running->block->warps[thread().index.x / 32];
  warp.values[thread().index.x % 32] = value;
  meet(warp.meeting, 32, [&] { std::memcpy(warp.handed, warp.values, sizeof(warp.values)); });
  return warp.handed;
}

void sync_threads(int barrier, int threads) {
  int count = threads ? threads : machine->threads;
  meet(machine->running->block->named[barrier], count, [] {});
}

void barrier_init(uint32_t barrier, int arrivals) {
  Barrier& made = machine->running->block->barriers[barrier];
  made.expected = made.pending = arrivals;
}

void barrier_arrive(uint32_t address, int bytes) {
  Barrier& barrier = barrier_at(*machine->running->block, address);
  if (barrier.pending == 0) {
    fail("more arrivals at a barrier than it expects");
  }
  barrier.bytes += bytes;
  barrier.pending--;
  check(barrier);
}

void barrier_wait(uint32_t address, uint32_t parity) {
  Barrier& barrier = barrier_at(*machine->running->block, address);
  while (barrier.phase % 2 == parity) {
    barrier.waiting.push_back(machine->running);
    leave();
  }
}

void copy_later(uint32_t to, void const* from, int bytes, uint32_t barrier) {
  if (bytes % 16 || to % 16 || reinterpret_cast<uintptr_t>(from) % 16) {
    fail("a copy that is not of multiples of 16 bytes");
  }
  machine->copies.push_back({machine->running->block, to, from, bytes, barrier});
}

char const* run(void (*kernel)(void*), void* argument, int blocks, int threads, int shared_bytes,
                uint64_t seed) {
  static std::string result;
  Machine made;
  machine = &made;
  made.kernel = kernel;
  made.argument = argument;
  made.threads = threads;
  made.random.seed(seed);
  made.blocks.resize(size_t(blocks));
  made.fibers = std::vector<Fiber>(size_t(blocks * threads));
  made.left = blocks * threads;
  for (int b = 0; b < blocks; b++) {
    Block& block = made.blocks[size_t(b)];
    block.memory = std::make_unique<uint8_t[]>(size_t(shared_bytes) + 1024);
    std::memset(block.memory.get(), 0x7B, size_t(shared_bytes) + 1024);  // Nothing is zero yet.
    auto start = reinterpret_cast<uintptr_t>(block.memory.get());
    block.shared = block.memory.get() + (1024 - start % 1024);
    block.warps.resize(size_t(threads / 32));
    for (int t = 0; t < threads; t++) {
      Fiber& fiber = made.fibers[size_t(b * threads + t)];
      fiber.thread = {{unsigned(t), 0, 0}, {unsigned(b), 0, 0}, dim3(unsigned(blocks), 1, 1)};
      fiber.block = &block;
      fiber.stack.reset(new uint8_t[kStack]);
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      makecontext(&fiber.context, enter, 0);
      made.ready.push_back(&fiber);
    }
  }
  for (; made.left > 0 && made.error.empty(); made.idle++) {
    // A copy arrives now and then, and at the latest when nobody else can go on.
    if (!made.copies.empty() && (made.ready.empty() || made.random() % 4096 == 0)) {
      copy_one();
      continue;
    }
    if (made.ready.empty()) {
      made.error = "deadlock: all threads that are left wait";
    } else if (made.idle > kMostTurns) {
      made.error = "no end: threads poll for what nobody writes";
    } else {
      size_t chosen = made.random() % made.ready.size();
      std::swap(made.ready[chosen], made.ready.back());
      made.running = made.ready.back();
      made.ready.pop_back();
      swapcontext(&made.scheduler, &made.running->context);
    }
  }
  result = made.error;
  machine = nullptr;
  return result.c_str();
}

}  // namespace emulator
