import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { mock, test } from 'node:test'
import fc from 'fast-check'
import { Progress, type ProgressState, renderBar, renderProgress } from '../../src/cli/progress.ts'
import { FakeTerminal } from './fake-terminal.ts'

const state: ProgressState = {
  label: 'import',
  count: 312_000,
  unit: 'records',
  bytes: 61_000_000,
  bytesTotal: 100_000_000,
  failures: 0,
  elapsedMs: 10_000,
}

test('renderProgress() says how much, how fast and how long', () => {
  assert.equal(
    renderProgress(state, 200, 10),
    'import ▕██████▏   ▏ 61% 312,000 records · 31,200/s · 5.8 MiB/s · ETA 6.4s',
  )
  assert.equal(
    renderProgress({ ...state, bytesTotal: undefined, failures: 3 }, 200, 10),
    'import 312,000 records · 31,200/s · 5.8 MiB/s · 3 failed',
  )
})

test('renderProgress() promises nothing before it can know', () => {
  assert.equal(renderProgress({ ...state, elapsedMs: 100 }, 200, 0), 'import 61% 312,000 records')
  assert.equal(
    renderProgress({ ...state, bytes: 0, count: 0, bytesTotal: 0, elapsedMs: 0 }, 200, 0),
    'import 100% 0 records',
  )
  assert.doesNotMatch(renderProgress({ ...state, bytes: 0 }, 200, 0), /ETA/)
  assert.match(renderProgress({ ...state, bytes: 200_000_000 }, 200, 0), /100%.*s$/)
})

test('renderProgress() fits any width and never says more than 100%', () => {
  const natural = fc.nat()
  fc.assert(
    fc.property(
      natural,
      natural,
      natural,
      natural,
      fc.integer({ min: 1, max: 120 }),
      (count, bytes, bytesTotal, elapsedMs, width) => {
        const line = renderProgress({ ...state, count, bytes, bytesTotal, elapsedMs }, width, 20)
        assert.ok(line.length <= width)
        assert.doesNotMatch(line, /NaN|Infinity|undefined|\n/)
        const percent = /(\d+)%/.exec(renderProgress({ ...state, count, bytes, bytesTotal, elapsedMs }, 500, 0))
        assert.ok(Number(percent?.[1]) <= 100)
      },
    ),
  )
})

test('renderBar() fills in eighths and keeps its width', () => {
  fc.assert(
    fc.property(fc.double({ min: -1, max: 2, noNaN: true }), fc.integer({ min: 1, max: 40 }), (share, width) => {
      assert.equal(renderBar(share, width).length, width + 2)
    }),
  )
  assert.equal(renderBar(0, 4), '▕    ▏')
  assert.equal(renderBar(1, 4), '▕████▏')
  assert.equal(renderBar(0.5, 1), '▕▌▏')
})

test('Progress redraws one line on a terminal and takes it away at the end', () => {
  mock.timers.enable({ apis: ['setInterval'] })
  const terminal = new FakeTerminal({ isTTY: true, columns: 100 })
  const progress = new Progress(terminal, () => state)
  mock.timers.tick(100)
  progress.note('a problem')
  mock.timers.tick(100)
  progress.stop()
  mock.timers.tick(10_000)
  const drawn = `\r\x1b[K${renderProgress(state, 99, 20)}`
  assert.equal(terminal.errorText, `${drawn}\r\x1b[Ka problem\n${drawn}\r\x1b[K`)
  mock.timers.reset()
})

test('Progress writes a plain line every ten seconds where there is no terminal', () => {
  mock.timers.enable({ apis: ['setInterval'] })
  const terminal = new FakeTerminal()
  const progress = new Progress(terminal, () => state)
  mock.timers.tick(9_999)
  assert.equal(terminal.errorText, '')
  mock.timers.tick(10_001)
  progress.stop()
  assert.equal(terminal.errorText, `${renderProgress(state, 200, 0)}\n`.repeat(2))
  mock.timers.reset()
})

test('Progress does not pile up output that nobody reads', () => {
  mock.timers.enable({ apis: ['setInterval'] })
  const stderr = new PassThrough({ highWaterMark: 16 })
  const terminal = new FakeTerminal({}, stderr)
  const progress = new Progress(terminal, () => state)
  for (let redraw = 0; redraw < 100; redraw++) mock.timers.tick(10_000)
  progress.stop()
  assert.ok(stderr.writableLength + stderr.readableLength < 500)
  mock.timers.reset()
})
