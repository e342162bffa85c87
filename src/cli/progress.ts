/**
 * One renderer for all long work, on stderr: a bar that redraws itself on a terminal, and elsewhere a plain line every
 * ten seconds, so that logs stay short and nobody has to guess whether anything moves. `renderProgress` is pure.
 */
import { formatBytes, formatCount, formatDuration } from './quantity.ts'
import type { Terminal } from './terminal.ts'

/** How far the work is. */
export type ProgressState = {
  readonly label: string
  /** Things done, such as records, and their name. */
  readonly count: number
  readonly unit: string
  /** Bytes done; the share done is computed from them. */
  readonly bytes: number
  /** Undefined where nobody knows, as from a pipe. */
  readonly bytesTotal: number | undefined
  readonly failures: number
  readonly elapsedMs: number
}

const PARTIAL_BLOCKS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']

/** A bar of `width` cells filled to `share` (0 to 1), in eighths of a cell. */
export function renderBar(share: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * width * 8)
  const bar = '█'.repeat(eighths >> 3) + PARTIAL_BLOCKS[eighths & 7]!
  return `▕${bar.padEnd(width)}▏`
}

/** One line without its end; at most `width` characters. `barWidth` 0 leaves the bar out. */
export function renderProgress(state: ProgressState, width: number, barWidth: number): string {
  const parts = [state.label]
  const seconds = state.elapsedMs / 1000
  if (state.bytesTotal !== undefined) {
    // Work without bytes is done; a count of bytes beyond the total (a growing file) is not more than all of it.
    const share = state.bytesTotal === 0 ? 1 : Math.min(1, state.bytes / state.bytesTotal)
    if (barWidth > 0) parts.push(renderBar(share, barWidth))
    parts.push(`${Math.floor(share * 100)}%`)
  }
  parts.push(`${formatCount(state.count)} ${state.unit}`)
  const details: string[] = []
  if (seconds >= 0.5) {
    details.push(`${formatCount(state.count / seconds)}/s`)
    details.push(`${formatBytes(state.bytes / seconds)}/s`)
    if (state.bytesTotal !== undefined && state.bytes > 0 && state.bytes < state.bytesTotal) {
      details.push(`ETA ${formatDuration((state.elapsedMs * (state.bytesTotal - state.bytes)) / state.bytes)}`)
    }
  }
  if (state.failures > 0) details.push(`${formatCount(state.failures)} failed`)
  const line = [parts.join(' '), ...details].join(' · ')
  return line.length <= width ? line : line.slice(0, width)
}

/** Milliseconds between redraws on a terminal, and between lines elsewhere. */
const REDRAW_MS = 100
const LINE_MS = 10_000

/** Shows a state that its owner keeps up to date, until `stop`. */
export class Progress {
  readonly #terminal: Terminal
  readonly #state: () => ProgressState
  readonly #timer: NodeJS.Timeout
  readonly #isTerminal: boolean

  /** Calls `state` at each redraw. The timer does not keep the process alive. */
  constructor(terminal: Terminal, state: () => ProgressState) {
    this.#terminal = terminal
    this.#state = state
    this.#isTerminal = terminal.stderr.isTTY === true && terminal.environment['TERM'] !== 'dumb'
    this.#timer = setInterval(() => this.#show(), this.#isTerminal ? REDRAW_MS : LINE_MS)
    this.#timer.unref()
  }

  /** A line between redraws of the bar. */
  note(line: string): void {
    const { stderr } = this.#terminal
    if (stderr.writable) stderr.write(this.#isTerminal ? `\r\x1b[K${line}\n` : `${line}\n`)
  }

  /** Stops redrawing and takes the bar away: the summary that follows says the end. */
  stop(): void {
    clearInterval(this.#timer)
    if (this.#isTerminal && this.#terminal.stderr.writable) this.#terminal.stderr.write('\r\x1b[K')
  }

  #show(): void {
    const { stderr } = this.#terminal
    if (!stderr.writable || stderr.writableNeedDrain) return
    if (this.#isTerminal) {
      const width = Math.max(20, (stderr.columns ?? 80) - 1)
      stderr.write(`\r\x1b[K${renderProgress(this.#state(), width, width >= 60 ? 20 : 0)}`)
    } else {
      stderr.write(`${renderProgress(this.#state(), 200, 0)}\n`)
    }
  }
}
