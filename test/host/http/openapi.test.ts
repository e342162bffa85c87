import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ErrorTable } from '../../../src/base/errors.ts'
import { openApiDocument } from '../../../src/host/http/openapi.ts'
import { allowedMethods, type Route, routes } from '../../../src/host/http/route-table.ts'
import { Harness } from './http-harness.ts'

type Operation = {
  readonly operationId: string
  readonly parameters: readonly { readonly name: string; readonly in: string }[]
  readonly responses: Readonly<Record<string, unknown>>
}
type Document = {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

const concrete = (path: string) => path.replace('{bucket}', 'default').replace('{key}', 'some/key')
const allMethods = ['GET', 'HEAD', 'PUT', 'DELETE', 'POST', 'PATCH', 'OPTIONS', 'TRACE']

test('The server serves exactly the paths and methods of /openapi.json', async () => {
  await using harness = await Harness.start()
  const document: Document = JSON.parse((await harness.call('GET', '/openapi.json')).body.toString())
  assert.equal(document.openapi, '3.1.0')
  assert.ok(Object.keys(document.paths).length >= 10)
  for (const [path, operations] of Object.entries(document.paths)) {
    const documented = new Set(Object.keys(operations).map((method) => method.toUpperCase()))
    if (documented.has('GET')) documented.add('HEAD')
    for (const method of allMethods) {
      const answer = await harness.call(method, concrete(path))
      assert.equal(answer.status !== 405, documented.has(method), `${method} ${path} is ${answer.status}`)
      if (answer.status === 405) {
        assert.deepEqual(new Set(String(answer.headers.allow).split(', ')), documented, `Allow of ${path}`)
      }
      const routed = answer.status !== 404 || !answer.body.includes('ROUTE_NOT_FOUND')
      assert.ok(routed, `${method} ${path} is not routed`)
    }
  }
})

test('The document has every route of the table, its parameters, and only known error codes', () => {
  const document = openApiDocument('1.2.3') as unknown as Document
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => `${method.toUpperCase()} ${path} ${operation.operationId}`),
  )
  assert.deepEqual(
    operations.toSorted(),
    routes.map((route) => `${route.method} ${route.path} ${route.operationId}`).toSorted(),
  )
  for (const route of routes as readonly Route[]) {
    const operation = document.paths[route.path]![route.method.toLowerCase()]!
    const query = operation.parameters.filter((parameter) => parameter.in === 'query').map(({ name }) => name)
    assert.deepEqual(query, [...route.query])
    for (const code of route.errors)
      assert.ok(operation.responses[ErrorTable[code].status], `${route.operationId} ${code}`)
  }
  assert.equal(new Set(routes.map((route) => route.operationId)).size, routes.length)
})

test('Every reference of the document leads to a schema', () => {
  const text = JSON.stringify(openApiDocument('1.2.3'))
  const { components } = JSON.parse(text)
  const names = [...text.matchAll(/#\/components\/schemas\/(\w+)/g)].map((match) => match[1]!)
  assert.ok(names.length > 20)
  for (const name of names) assert.ok(components.schemas[name], name)
  for (const name of Object.keys(components.schemas)) assert.ok(names.includes(name), `${name} is not used`)
})

test('Query parameters that a route documents are the ones it takes', async () => {
  await using harness = await Harness.start()
  for (const route of routes as readonly Route[]) {
    if (route.method === 'HEAD') continue
    const answer = await harness.json(route.method, `${concrete(route.path)}?unheardOf=1`)
    assert.equal(answer['code'], 'BAD_REQUEST', `${route.method} ${route.path}`)
    for (const name of route.query) assert.match(String(answer['detail']), new RegExp(`\\b${name}\\b`))
  }
})

test('A path outside the table allows nothing', () => {
  assert.equal(allowedMethods('/'), undefined)
  assert.equal(allowedMethods('/v1/kv'), undefined)
  assert.equal(allowedMethods('/v1/kv/'), undefined)
  assert.equal(allowedMethods('/v2/kv/default/k'), undefined)
  assert.equal(allowedMethods('/v1/kv/default'), 'GET, HEAD')
  assert.equal(allowedMethods('/v1/kv/default/a/b'), 'GET, HEAD, PUT, DELETE')
})
