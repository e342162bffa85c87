/** What a figure is worth depends on where it was taken: machine, versions and commit go into every report. */
import { execFileSync } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, platform, release, totalmem } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

export type Machine = {
  readonly processor: string
  readonly cores: number
  readonly memoryGiB: number
  readonly system: string
  readonly node: string
  readonly versions: Readonly<Record<string, string>>
  /** Short commit id, with `+` when files differ from it. */
  readonly commit: string
  /** ISO 8601. */
  readonly startedAt: string
  /** Load average of the last minute before the run. */
  readonly loadBefore: number
}

const root = join(import.meta.dirname, '..')
const packages = ['lmdb', 'classic-level', 'fastify']

export function machineNow(): Machine {
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${platform()} ${release()}`,
    node: process.version,
    versions: Object.fromEntries(packages.map((name) => [name, packageVersion(name)])),
    commit: commitNow(),
    startedAt: new Date().toISOString(),
    loadBefore: Math.round((loadavg()[0] ?? 0) * 100) / 100,
  }
}

/** Whether a program of this name is on the PATH. */
export function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

function packageVersion(name: string): string {
  try {
    const text = readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8')
    return (JSON.parse(text) as { version: string }).version
  } catch {
    return 'not installed'
  }
}

function commitNow(): string {
  try {
    const git = (...words: string[]): string => execFileSync('git', words, { cwd: root, encoding: 'utf8' }).trim()
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--', 'src') === '' ? '' : '+')
  } catch {
    return 'unknown'
  }
}

/** Cores that something kept busy during the next `sampleMs`; undefined where the system does not tell (not Linux). */
export async function busyCores(sampleMs: number): Promise<number | undefined> {
  const before = processorTimes()
  await delay(sampleMs)
  const after = processorTimes()
  if (before === undefined || after === undefined || after.all === before.all) return undefined
  return (availableParallelism() * (after.busy - before.busy)) / (after.all - before.all)
}

/** Ticks of all cores since the machine started. */
function processorTimes(): { busy: number; all: number } | undefined {
  try {
    const line = readFileSync('/proc/stat', 'latin1').split('\n', 1)[0] ?? ''
    // cpu user nice system idle iowait irq softirq steal (guest times are within user and nice)
    const ticks = line.split(/\s+/).slice(1, 9).map(Number)
    const all = ticks.reduce((total, part) => total + part, 0)
    return { busy: all - ticks[3]! - ticks[4]!, all }
  } catch {
    return undefined
  }
}
