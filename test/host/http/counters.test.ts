import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HttpCounters, methodNumberOf, renderHttpMetrics } from '../../../src/host/http/counters.ts'

test('The counters stand where their drawing says', () => {
  const memory = new SharedArrayBuffer(HttpCounters.bytes)
  const counters = new HttpCounters(memory)
  counters.connectionOpened()
  counters.connectionOpened()
  counters.connectionClosed()
  counters.connectionDropped()
  counters.clientError()
  counters.requestAbandoned()
  counters.request(methodNumberOf('PUT'), 204, 0.3, 100, 7)
  counters.problem('BAD_REQUEST')
  const values = new Float64Array(memory)
  assert.deepEqual([...values.subarray(0, 7)], [1, 2, 1, 1, 100, 7, 1])
  assert.equal(values[8 + 2 * 6 + 2], 1)
  assert.equal(values[44 + 2 * 20 + 3], 1, 'bucket 0.25 to 0.5 ms')
  assert.equal(values[44 + 2 * 20 + 18], 0.3)
  assert.equal(values[164 + 1], 1)
})

test('The metrics of all threads are summed as Prometheus text', () => {
  const first = new HttpCounters()
  const second = new HttpCounters()
  first.request(methodNumberOf('GET'), 200, 0.01, 0, 10)
  second.request(methodNumberOf('GET'), 200, 20_000, 0, 10)
  second.request(methodNumberOf('GET'), 404, 1, 0, 10)
  second.request(methodNumberOf('BREW'), 999, 1, 0, 0)
  second.problem('NOT_FOUND')
  const text = renderHttpMetrics([first, second])
  assert.match(text, /^sunwise_http_requests_total\{method="GET",status="2xx"\} 2$/m)
  assert.match(text, /^sunwise_http_requests_total\{method="GET",status="4xx"\} 1$/m)
  assert.match(text, /^sunwise_http_requests_total\{method="OTHER",status="5xx"\} 1$/m)
  assert.match(text, /^sunwise_http_response_bytes_total 30$/m)
  assert.match(text, /^sunwise_http_request_duration_seconds_bucket\{method="GET",le="0.00005"\} 1$/m)
  assert.match(text, /^sunwise_http_request_duration_seconds_bucket\{method="GET",le="0.001"\} 2$/m)
  assert.match(text, /^sunwise_http_request_duration_seconds_bucket\{method="GET",le="10"\} 2$/m)
  assert.match(text, /^sunwise_http_request_duration_seconds_bucket\{method="GET",le="\+Inf"\} 3$/m)
  assert.match(text, /^sunwise_http_request_duration_seconds_count\{method="GET"\} 3$/m)
  assert.match(text, /^sunwise_http_request_duration_seconds_sum\{method="GET"\} 20\.00101$/m)
  assert.match(text, /^sunwise_http_problems_total\{code="NOT_FOUND"\} 1$/m)
})

test('Every family has HELP and TYPE before its samples, and every line is a sample or a comment', () => {
  const text = renderHttpMetrics([new HttpCounters()])
  const described = new Set<string>()
  for (const line of text.trimEnd().split('\n')) {
    const comment = /^# (HELP|TYPE) (\S+) \S/.exec(line)
    if (comment !== null) {
      if (comment[1] === 'TYPE') described.add(comment[2]!)
      continue
    }
    const sample = /^([a-z_]+)(\{[a-z]+="[^"]+"(,[a-z]+="[^"]+")*\})? (\S+)$/.exec(line)
    assert.ok(sample !== null, line)
    assert.ok(described.has(sample[1]!.replace(/_(bucket|sum|count)$/, '')) || described.has(sample[1]!), line)
    assert.ok(Number.isFinite(Number(sample[4])), line)
  }
  assert.ok(text.endsWith('\n'))
})
