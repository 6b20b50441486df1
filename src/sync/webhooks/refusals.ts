/** What it means for an operator that deliveries of webhooks were refused. */

/** Undefined of what is no refusal, or explains itself. */
export function whyRefused(store: string, because: string): string | undefined {
  const why = reasons[because];
  if (why === undefined) return undefined;
  return `${why.replaceAll('STORE', store)}. Nothing of them was stored: what they told of is copied after the next poll instead`;
}

const signatures = 'stores.STORE.connector.webhook.signatures';

const reasons: Readonly<Record<string, string>> = {
  wrong: `their signatures do not match ${signatures}: compare the secrets on both sides`,
  unsigned: `they carry no signature that ${signatures} names: compare scheme and header`,
  'too-old': `their signatures match ${signatures}, but their time is too far from ours: look at both clocks, and at toleranceMs`,
  'too-large': 'their bodies are longer than webhooks.bodyBytes: raise it',
  'not-json': 'their bodies are no JSON: look at what STORE sends',
};
