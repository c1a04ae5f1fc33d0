// A peer of the benchmark: the Go library centrifuge, the engine of Centrifugo, as small as a server on it can be.
//
// Clients connect to /ws?channel=NAME, are subscribed to that channel by the server, and may publish to it.
// POST /publish: the body, a text, goes to the channel "bench" as one publication. Everything stays in memory: no history,
// no presence, no token, no compression.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/centrifugal/centrifuge"
)

type channelKey struct{}

// asAnonymous lets a connection in and remembers the channel that it asked for.
func asAnonymous(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := centrifuge.SetCredentials(r.Context(), &centrifuge.Credentials{UserID: ""})
		ctx = context.WithValue(ctx, channelKey{}, r.URL.Query().Get("channel"))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func main() {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(ctx context.Context, _ centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		channel, _ := ctx.Value(channelKey{}).(string)
		return centrifuge.ConnectReply{
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {}},
		}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnPublish(func(_ centrifuge.PublishEvent, answer centrifuge.PublishCallback) {
			answer(centrifuge.PublishReply{}, nil) // an empty reply: the node publishes it
		})
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	socket := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		CheckOrigin:    func(*http.Request) bool { return true },
		PingPongConfig: centrifuge.PingPongConfig{PingInterval: 10 * time.Minute, PongTimeout: time.Minute},
	})
	http.Handle("/ws", asAnonymous(socket))
	http.HandleFunc("/publish", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var data []byte
		if err == nil {
			data, err = json.Marshal(string(body)) // clients speak JSON here: what is published must be some
		}
		if err == nil {
			_, err = node.Publish("bench", data)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
