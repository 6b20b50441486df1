/**
 * Does a GraphQL request write? Its document is parsed; it reads only where everything says so: any mutation in
 * it, a document that is stored elsewhere, and whatever servers could understand differently is a write.
 */
import { Kind, Lexer, OperationTypeNode, parse, Source, TokenKind } from 'graphql';
import { onlyValueInPairs, Pairs, readingsInPairs } from '../core/condition.ts';
import type { Access } from '../core/route.ts';
import { elementsOf, JsonText, jsonTextOf, readingsAt, someMember } from './json-text.ts';
import type { SeenBody } from './seen-body.ts';

/** Of all documents of a request together: the work of parsing grows with them, and so does the stack. */
const tokensMax = 10_000;
const depthMax = 100;
const batchMax = 100;

const requestMembers = new Set(['query', 'operationName', 'variables', 'extensions']);
/** Names by which servers take a stored document instead of the one in the request. */
const storedNames = ['id', 'documentId', 'document_id', 'doc_id', 'docId', 'queryId', 'query_id', 'hash'];

interface Budget {
  tokens: number;
}

interface Request {
  readonly method: string;
  /** Of the target. */
  readonly query: string;
  readonly body: SeenBody;
}

export function graphqlAccess({ method, query, body }: Request): Access {
  const budget = { tokens: tokensMax };
  if (method === 'GET' || method === 'HEAD') {
    return body.kind === 'none' && queryReads(query, budget) ? 'read' : 'write';
  }
  if (method === 'OPTIONS') return body.kind === 'none' ? 'read' : 'write';
  // Servers take a document in the URL before one in the body.
  const pairs = new Pairs(query);
  const inUrl = [...requestMembers, ...storedNames].some((name) => readingsInPairs(pairs, name).length > 0);
  if (method !== 'POST' || inUrl) return 'write';
  if (body.kind === 'graphql') return documentReads(body.text, undefined, budget) ? 'read' : 'write';
  return body.kind === 'json' && jsonReads(body.text, budget) ? 'read' : 'write';
}

function queryReads(text: string, budget: Budget): boolean {
  const query = new Pairs(text);
  if (storedNames.some((name) => readingsInPairs(query, name).length > 0)) return false;
  const extensions = onlyValueInPairs(query, 'extensions');
  if (extensions !== undefined) {
    const text = jsonTextOf(Buffer.from(extensions));
    if (text === undefined || namesStoredDocument(text)) return false;
  }
  const document = onlyValueInPairs(query, 'query');
  return document !== undefined && documentReads(document, onlyValueInPairs(query, 'operationName'), budget);
}

function jsonReads(text: string, budget: Budget): boolean {
  const batch = elementsOf(text, batchMax);
  if (batch === undefined) return requestReads(text, budget);
  return batch.length > 0 && batch.every((entry) => requestReads(entry, budget));
}

function requestReads(text: string, budget: Budget): boolean {
  if (someMember(text, (key) => !requestMembers.has(key))) return false;
  const json = new JsonText(text);
  const found = [readingsAt(json, ['query']), readingsAt(json, ['operationName'])] as const;
  const extensions = readingsAt(json, ['extensions']);
  if (found[0] === 'too-many' || found[1] === 'too-many' || extensions === 'too-many') return false;
  const [[document, ...documents], [operation, ...operations]] = found;
  if (document === undefined || documents.length > 0 || operations.length > 0) return false;
  if (extensions.some((value) => namesStoredDocument(value))) return false;
  const source: unknown = JSON.parse(document);
  const name: unknown = operation === undefined ? undefined : JSON.parse(operation);
  if (typeof source !== 'string') return false;
  if (name !== undefined && name !== null && typeof name !== 'string') return false;
  return documentReads(source, name ?? undefined, budget);
}

/** Which of the two runs, the stored document or the one sent along, is the server's choice. */
function namesStoredDocument(extensions: string | undefined): boolean {
  if (extensions === undefined) return false;
  // As a text, a server may read what is in it.
  if (!/^\s*(?:\{|null\s*$)/.test(extensions)) return true;
  const readings = readingsAt(extensions, ['persistedQuery']);
  return readings === 'too-many' || readings.some((reading) => reading !== undefined);
}

function documentReads(text: string, operationName: string | undefined, budget: Budget): boolean {
  if (operationName === '') return false;
  try {
    const source = new Source(text);
    if (!isSmall(source, budget)) return false;
    const { definitions } = parse(source, { noLocation: true, maxTokens: tokensMax });
    const operations = [];
    for (const definition of definitions) {
      if (definition.kind === Kind.OPERATION_DEFINITION) operations.push(definition);
      else if (definition.kind !== Kind.FRAGMENT_DEFINITION) return false;
    }
    if (operations.some(({ operation }) => operation === OperationTypeNode.MUTATION)) return false;
    if (operationName === undefined) return operations.length === 1;
    return operations.filter(({ name }) => name?.value === operationName).length === 1;
  } catch {
    // Not GraphQL: what a server makes of it is unknown.
    return false;
  }
}

function isSmall(source: Source, budget: Budget): boolean {
  const lexer = new Lexer(source);
  let depth = 0;
  for (let token = lexer.advance(); token.kind !== TokenKind.EOF; token = lexer.advance()) {
    budget.tokens -= 1;
    if (token.kind === TokenKind.BRACE_L || token.kind === TokenKind.BRACKET_L) depth += 1;
    if (token.kind === TokenKind.PAREN_L) depth += 1;
    if (token.kind === TokenKind.BRACE_R || token.kind === TokenKind.BRACKET_R) depth -= 1;
    if (token.kind === TokenKind.PAREN_R) depth -= 1;
    if (budget.tokens < 0 || depth > depthMax) return false;
  }
  return true;
}
