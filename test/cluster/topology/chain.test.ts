/** The chain of epochs under everything that a network, disks and crashes may do: one value for each epoch, and each change once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isAtRest } from '../../../src/cluster/topology/invariants.ts'
import { changeMembers } from '../../../src/cluster/topology/transitions.ts'
import { ChainSim, noFaults, type SimNode } from './chain-sim.ts'
import { drawnChange, idOf, joinOf, nextMove } from './topology-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const seconds = 1000

/** Drives what is planned from whichever node is up, until `isDone`, and asks again what is lost. */
function drive(sim: ChainSim, isDone: () => boolean, ask: (node: SimNode) => void, limitMs = 120 * seconds): boolean {
  const tookMs = sim.runUntil(() => {
    if (isDone()) return true
    const up = sim.nodes.filter(({ isUp, chain }) => isUp && chain.topology !== undefined && chain.changesPending === 0)
    if (up.length === 0) return false
    const node = sim.random.pick(up)
    const move = nextMove(node.chain.topology!)
    if (move !== undefined) sim.change(node, move)
    else ask(node)
    return false
  }, limitMs)
  return tookMs !== undefined
}

/** 1 -> 2 -> 3 -> 2 -> 1 members. */
function growAndShrink(sim: ChainSim): void {
  const [first, second, third] = [0, 1, 2].map(idOf) as [string, string, string]
  for (const [members, apply] of [
    [[first, second], joinOf(1)],
    [[first, second, third], joinOf(2)],
    [[second, third], { type: 'leave', nodeId: first }],
    [[third], { type: 'leave', nodeId: second }],
  ] as const) {
    const isThere = (): boolean => {
      const ids = sim.book.latest.members.map(({ nodeId }) => nodeId)
      return isAtRest(sim.book.latest) && ids.join() === members.join()
    }
    const ask = (node: SimNode): void => sim.change(node, (before) => changeMembers(before, [apply]))
    assert.ok(drive(sim, isThere, ask), `There are ${members.length} members at last`)
  }
  assert.ok(sim.runUntil(() => sim.isConverged, 30 * seconds) !== undefined, 'All have the end of the chain')
  sim.checkEnd()
}

test('Chain: 1, 2, 3, 2, 1 members, with a crash at every message and every save', (t) => {
  const whole = new ChainSim('grow')
  whole.start(3, 2)
  growAndShrink(whole)
  const steps = whole.happenings
  let crashes = 0
  for (let step = 0; step < steps; step++) {
    const sim = new ChainSim('grow')
    sim.start(3, 2)
    try {
      sim.beforeHappening = (node) => {
        if (sim.happenings !== step) return
        crashes++
        sim.crash(node)
        sim.restartLater(node, 300)
      }
      growAndShrink(sim)
    } catch (error) {
      throw new Error(`Crash at step ${step}: ${error instanceof Error ? error.message : error}`, { cause: error })
    }
  }
  t.diagnostic(`${whole.book.latest.epoch} epochs, ${crashes} crashes`)
  assert.ok(crashes > 100)
})

/** Faults and load for a while, then peace. */
function run(seed: string): { readonly epochs: number; readonly messages: number } {
  const sim = new ChainSim(seed)
  const { random } = sim
  sim.start(random.between(1, 7))
  const oneIn = (...choices: number[]): number => random.pick(choices)
  sim.faults = {
    lossOneIn: oneIn(0, 3, 10, 50),
    doubleOneIn: oneIn(0, 2, 10),
    lateOneIn: oneIn(0, 5, 30),
    saveErrorOneIn: oneIn(0, 0, 20),
  }
  const crashOneIn = oneIn(0, 20, 60, 200)
  const cutOneIn = oneIn(0, 10, 40)
  let sides = 0
  for (let turn = 0; turn < 80; turn++) {
    sim.run(random.between(10, 120))
    const node = random.pick(sim.nodes)
    if (!node.isUp) {
      if (random.chance(1, 3)) sim.restart(node)
      continue
    }
    if (crashOneIn > 0 && random.chance(1, crashOneIn)) {
      // In the middle of something, where there is something.
      const at = sim.happenings + random.below(6)
      sim.beforeHappening = (other) => {
        if (sim.happenings >= at && other === node && node.isUp) sim.crash(node)
      }
      continue
    }
    sim.beforeHappening = () => {}
    if (cutOneIn > 0 && random.chance(1, cutOneIn)) {
      sides = random.chance(1, 3) ? 0 : random.u32()
      const isOneWay = random.chance(1, 4)
      sim.reaches = (from, to) => ((sides >>> from) & 1) === ((sides >>> to) & 1) || (isOneWay && from < to)
    }
    if (node.chain.topology === undefined) continue
    if (random.chance(1, 3)) sim.mark(node)
    else sim.change(node, drawnChange(node.chain.topology, random, sim.nodes.length))
  }
  heal(sim)
  sim.checkEnd()
  return { epochs: sim.book.latest.epoch, messages: sim.happenings }
}

/** All are up and reach each other: everybody gets his change in, and has the whole chain. */
function heal(sim: ChainSim): void {
  sim.faults = { ...noFaults }
  sim.reaches = () => true
  sim.beforeHappening = () => {}
  for (const node of sim.nodes) if (!node.isUp) sim.restart(node)
  const isQuiet = (): boolean => sim.isConverged && sim.nodes.every(({ chain }) => chain.changesPending === 0)
  assert.ok(sim.runUntil(isQuiet, 40 * seconds) !== undefined, 'All have the whole chain, and no change waits')
  const last = sim.nodes.map((node) => sim.mark(node))
  const areDecided = (): boolean => last.every((name) => sim.marks.get(name)?.type === 'decided')
  assert.ok(sim.runUntil(areDecided, 10 * seconds) !== undefined, 'Everybody can change the cluster again')
  assert.ok(sim.runUntil(() => sim.isConverged, 10 * seconds) !== undefined, 'All hear of it')
}

test('Chain: whatever is lost, late, doubled, cut off and crashes, epochs are agreed on and changes made once', (t) => {
  let epochs = 0
  let messages = 0
  const runs = Math.ceil(300 * scale)
  const only = process.env['SUNWISE_TEST_SEED']
  for (let index = 0; index < runs; index++) {
    const seed = only ?? `chain ${index}`
    try {
      const outcome = run(seed)
      epochs += outcome.epochs
      messages += outcome.messages
    } catch (error) {
      throw new Error(`Seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error })
    }
    if (only !== undefined) break
  }
  t.diagnostic(`${runs} seeds, ${epochs} epochs, ${messages} messages and saves`)
  assert.ok(only !== undefined || epochs > 10 * runs)
})
