// See emulator.h.
#include "emulator.h"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
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

struct Cluster {
  int arrived = 0;
  uint32_t phase = 0;
  std::vector<Fiber*> waiting;
};

struct Block {
  Cluster* cluster = nullptr;
  int rank = 0;
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
  std::vector<std::function<void()>> copies;  // That no barrier has been told of.
  uint32_t cluster_phase = 0;
  bool done = false;
};

// What happens later: writes, and what a barrier is then told of.
struct Copy {
  Block* block;
  std::function<void()> write;
  uint32_t barrier;
  int bytes, arrivals;
};

struct Machine {
  std::vector<Cluster> clusters;
  std::vector<Block> blocks;
  std::vector<Fiber> fibers;
  std::vector<Fiber*> ready;
  std::vector<Copy> copies;
  std::mt19937_64 random;
  ucontext_t scheduler;
  Fiber* running = nullptr;
  void (*kernel)(void*) = nullptr;
  void* argument = nullptr;
  int threads = 0, left = 0, cluster = 1;
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
  copy.write();
  Barrier& barrier = barrier_at(*copy.block, copy.barrier);
  barrier.bytes -= copy.bytes;
  barrier.pending -= copy.arrivals;
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
  Block* block = machine->running->block;
  auto write = [=] { std::memcpy(block->shared + to, from, size_t(bytes)); };
  machine->copies.push_back({block, write, barrier, bytes, 0});
}

void copy_box_later(uint32_t to, Box const& box, int column, int row, uint32_t barrier) {
  if (to % 1024 || column % 16) {
    fail("a box that does not begin where one may");
  }
  Block* block = machine->running->block;
  auto write = [=] {
    for (int r = 0; r < box.box_rows; r++) {
      for (int c = 0; c < kBoxBytes; c++) {
        bool inside = row + r < box.rows && column + c < box.row_bytes;
        uint32_t at = to + uint32_t(r * kBoxBytes + c);
        at ^= (at >> 7 & 7) << 4;
        block->shared[at] = inside ? box.data[int64_t{row + r} * box.row_bytes + column + c] : 0;
      }
    }
  };
  machine->copies.push_back({block, write, barrier, box.box_rows * kBoxBytes, 0});
}

void copy_by_thread(uint32_t to, void const* from, int size, int bytes) {
  Block* block = machine->running->block;
  if (to % uint32_t(bytes) || reinterpret_cast<uintptr_t>(from) % uintptr_t(bytes)) {
    fail("a copy of a thread that is not aligned");
  }
  machine->running->copies.push_back([=] {
    std::memset(block->shared + to, 0, size_t(bytes));
    std::memcpy(block->shared + to, from, size_t(size));
  });
}

void arrive_with_copies(uint32_t barrier) {
  auto copies = std::move(machine->running->copies);
  machine->running->copies.clear();
  auto write = [copies] {
    for (auto& copy : copies) {
      copy();
    }
  };
  machine->copies.push_back({machine->running->block, write, barrier, 0, 1});
}

namespace {

Block& block_of(uint32_t remote) {
  Block* own = machine->running->block;
  return own[int(remote >> 24) - own->rank];
}

}  // namespace

void send_later(uint32_t remote, uint32_t remote_barrier, uint32_t const (&words)[4]) {
  Block* block = &block_of(remote);
  std::vector<uint32_t> kept(words, words + 4);
  uint32_t to = remote & 0xFFFFFF;
  auto write = [=] { std::memcpy(block->shared + to, kept.data(), 16); };
  machine->copies.push_back({block, write, remote_barrier & 0xFFFFFF, 16, 0});
}

void cluster_arrive() {
  Cluster& cluster = *machine->running->block->cluster;
  machine->running->cluster_phase = cluster.phase;
  if (++cluster.arrived == machine->cluster * machine->threads) {
    cluster.arrived = 0;
    cluster.phase++;
    wake(cluster.waiting);
  }
}

void cluster_wait() {
  Cluster& cluster = *machine->running->block->cluster;
  while (cluster.phase == machine->running->cluster_phase) {
    cluster.waiting.push_back(machine->running);
    leave();
  }
}

char const* run(void (*kernel)(void*), void* argument, int blocks, int threads, int shared_bytes,
                uint64_t seed, int cluster) {
  static std::string result;
  Machine made;
  machine = &made;
  made.kernel = kernel;
  made.argument = argument;
  made.threads = threads;
  made.random.seed(seed);
  made.cluster = cluster;
  made.clusters.resize(size_t(blocks / cluster));
  made.blocks.resize(size_t(blocks));
  made.fibers = std::vector<Fiber>(size_t(blocks * threads));
  made.left = blocks * threads;
  for (int b = 0; b < blocks; b++) {
    Block& block = made.blocks[size_t(b)];
    block.cluster = &made.clusters[size_t(b / cluster)];
    block.rank = b % cluster;
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
