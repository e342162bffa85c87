/**
 * How membership does in clusters of several sizes: the time until a crash is found by the first and by all, members that were taken for
 * dead and were not, bytes, and how fast news spread. `node test/cluster/membership/membership-report.ts [members...]` prints a table.
 */
import { MembershipSim } from './membership-sim.ts'

const seconds = 1000
const crashes = 5

export type MembershipFigures = {
  readonly members: number
  /** Until the first suspicion, and until all take it for dead; medians, milliseconds. */
  readonly suspectedMs: number
  readonly deadMs: number
  /** From the first who took it for dead to the last. */
  readonly spreadMs: number
  readonly bytesPerSecond: number
  /** Wrongly taken for dead: with one in twenty datagrams lost, and one member in twenty stalling for 5 s of 20. */
  readonly wronged: number
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >>> 1]!
}

export function figuresOf(count: number, seed = `report ${count}`): MembershipFigures {
  const sim = new MembershipSim(seed)
  sim.start(count)
  while (!sim.hasConverged()) sim.run(seconds)
  sim.run(20 * seconds)
  for (const member of sim.members) member.bytesSent = 0
  sim.run(30 * seconds)
  const bytesPerSecond = sim.members.reduce((sum, { bytesSent }) => sum + bytesSent, 0) / count / 30
  const suspectedMs: number[] = []
  const deadMs: number[] = []
  const spreadMs: number[] = []
  for (let crash = 0; crash < crashes; crash++) {
    const victim = sim.random.pick(sim.members.filter(({ isUp }) => isUp))
    sim.observations.length = 0
    const startMs = sim.nowMs
    sim.crash(victim)
    while (!sim.allSee(victim.nodeId, ['dead'])) sim.run(200)
    const of = (state: string): number[] =>
      sim.observations.filter((each) => each.nodeId === victim.nodeId && each.state === state).map(({ atMs }) => atMs)
    const dead = of('dead')
    suspectedMs.push(Math.min(...of('suspect')) - startMs)
    deadMs.push(Math.max(...dead) - startMs)
    spreadMs.push(Math.max(...dead) - Math.min(...dead))
    sim.restart(victim)
    while (!sim.hasConverged()) sim.run(seconds)
  }
  sim.observations.length = 0
  sim.lossOneIn = 20
  for (let round = 0; round < 5; round++) {
    for (const member of sim.members) {
      if (sim.random.chance(1, 20)) member.stalledUntilMs = sim.nowMs + 5 * seconds
    }
    sim.run(20 * seconds)
  }
  const wronged = new Set(sim.observations.filter(({ state }) => state === 'dead').map(({ nodeId }) => nodeId)).size
  return {
    members: count,
    suspectedMs: median(suspectedMs),
    deadMs: median(deadMs),
    spreadMs: median(spreadMs),
    bytesPerSecond,
    wronged,
  }
}

export function reportText(sizes: readonly number[]): string {
  const rows = sizes.map((size) => {
    const { members, suspectedMs, deadMs, spreadMs, bytesPerSecond, wronged } = figuresOf(size)
    const cells = [suspectedMs, deadMs, spreadMs].map((ms) => `${(ms / 1000).toFixed(1)} s`)
    return `| ${members} | ${cells.join(' | ')} | ${bytesPerSecond.toFixed(0)} | ${wronged} |`
  })
  const head = '| Members | Suspected after | Down for all after | Spread in | B/s each | Wrongly taken for down |'
  return [head, '| ---: | ---: | ---: | ---: | ---: | ---: |', ...rows].join('\n')
}

if (import.meta.main) {
  const sizes = process.argv.slice(2).map(Number)
  process.stdout.write(`${reportText(sizes.length > 0 ? sizes : [10, 100, 300, 1000])}\n`)
}
