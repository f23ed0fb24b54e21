import java.io.FileInputStream;
import java.io.InputStream;
import java.net.http.HttpClient;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.UUID;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import keyvault.ApiClient;
import keyvault.ApiException;
import keyvault.api.AuditApi;
import keyvault.api.KeysApi;
import keyvault.api.UseApi;
import keyvault.model.*;

/** Creates a key, signs with it, and lists keys and entries, with the generated client. Arguments: URL, and PKCS#12 files of the CA, of the node and of the auditor. */
public final class CreateSignList {
    private static final char[] PASSWORD = "changeit".toCharArray();

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        ApiClient node = client(url, arguments[1], arguments[2]);
        KeysApi keys = new KeysApi(node);
        UseApi use = new UseApi(node);

        CreateKey request = new CreateKey().node("participant1").purpose(Purpose.SIGNING).spec(KeySpec.EC_CURVE25519).usage(List.of(Usage.PROTOCOL));
        String idempotency = UUID.randomUUID().toString();
        Key key = keys.keysCreate(request, idempotency);
        check(keys.keysCreate(request, idempotency).getId().equals(key.getId()), "a repeated creation made another key");
        check(keys.keysShow(key.getId()).equals(key), "the key is shown otherwise than it was created");

        byte[] message = "a message".getBytes();
        SignAnswer signed = use.keysSign(key.getId(), new SignRequest().algorithm(Algorithm.ED25519).message(Base64.getEncoder().encodeToString(message)));
        Signature verifier = Signature.getInstance("Ed25519");
        byte[] spki = Base64.getDecoder().decode(key.getPublicKey());
        verifier.initVerify(KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(spki)));
        verifier.update(message);
        check(verifier.verify(Base64.getDecoder().decode(signed.getSignature())), "the signature does not verify");

        List<String> ids = new ArrayList<>();
        String cursor = null;
        do {
            ListKey page = keys.keysList("participant1", Purpose.SIGNING, KeyState.ACTIVE, null, null, null, null, null, cursor, 1);
            for (Key each : page.getItems()) ids.add(each.getId());
            cursor = page.getNextCursor();
        } while (cursor != null);
        check(ids.contains(key.getId()), "the list lacks the key");

        AuditApi audit = new AuditApi(client(url, arguments[1], arguments[3]));
        AuditEntryList entries = audit.auditQuery(
                key.getId(), null, null, null, null, Operation.KEYS_SIGN, Outcome.OK, null, null, null, null, null, null, null, null, null, null, null);
        check(entries.getItems().size() == 1, "the log does not have the one signature");

        try {
            keys.keysShow("1220" + "00".repeat(32));
            check(false, "a key was shown that does not exist");
        } catch (ApiException refused) {
            Problem problem = node.getObjectMapper().readValue(refused.getResponseBody(), Problem.class);
            check(problem.getCode() == Code.NOT_FOUND && !problem.getRetryable(), "the problem document is " + problem);
        }
        System.out.println("Java: created " + key.getId() + ", signed with it, and found it among " + ids.size() + " keys");
    }

    private static ApiClient client(String url, String authority, String certificate) throws Exception {
        KeyManagerFactory own = KeyManagerFactory.getInstance("PKIX");
        own.init(store(certificate), PASSWORD);
        TrustManagerFactory trusted = TrustManagerFactory.getInstance("PKIX");
        trusted.init(store(authority));
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(own.getKeyManagers(), trusted.getTrustManagers(), null);
        ApiClient client = new ApiClient();
        client.setHttpClientBuilder(HttpClient.newBuilder().sslContext(tls));
        client.updateBaseUri(url);
        return client;
    }

    private static KeyStore store(String file) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream input = new FileInputStream(file)) {
            store.load(input, PASSWORD);
        }
        return store;
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) throw new AssertionError(otherwise);
    }
}
