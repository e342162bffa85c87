import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Circuit } from '../../src/client/circuit.ts'

test('Circuit opens after three failures in a row, and any answer closes it', () => {
  const circuit = new Circuit(() => 0.5)
  circuit.failed(0)
  circuit.failed(0)
  circuit.succeeded()
  circuit.failed(0)
  circuit.failed(0)
  assert.equal(circuit.isOpen, false)
  assert.equal(circuit.claimProbe(1e9), false, 'what is closed needs no probe')
  circuit.failed(0)
  assert.equal(circuit.isOpen, true)
  circuit.succeeded()
  assert.equal(circuit.isOpen, false)
})

test('Circuit lets one probe through at a time, after pauses that double up to a bound', () => {
  const circuit = new Circuit(() => 0)
  let nowMs = 0
  for (let index = 0; index < 100; index++) circuit.failed(nowMs)
  const pauses: number[] = []
  for (let index = 0; index < 8; index++) {
    const from = nowMs
    while (!circuit.claimProbe(nowMs)) nowMs++
    assert.equal(circuit.claimProbe(nowMs), false)
    pauses.push(nowMs - from)
    circuit.failed(nowMs)
    circuit.probeFailed(nowMs)
  }
  assert.deepEqual(pauses, [125, 250, 500, 1000, 2000, 4000, 5000, 5000])
  circuit.claimProbe(nowMs + 5000)
  assert.equal(circuit.claimProbe(nowMs + 5000 + 10_000), true, 'a probe that was lost is not the last')
})
